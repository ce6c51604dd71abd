"""Provenance: which code, settings, data and machine made a run. Nothing here imports torch."""

from relume.provenance.record import Provenance
from relume.provenance.restore import Restored, restore_code
from relume.provenance.secrets import Redactor

__all__ = ["Provenance", "Redactor", "Restored", "restore_code"]
