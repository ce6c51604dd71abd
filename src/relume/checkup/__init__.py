"""What in an environment or a script stands in the way of reproducing a training."""

from relume.checkup.examine import doctor
from relume.checkup.findings import Finding, Place, Report

__all__ = ["Finding", "Place", "Report", "doctor"]
