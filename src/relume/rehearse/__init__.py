"""The rehearsal: proof on the user's own script that it resumes to the last bit, before a week of training rests on it."""

from relume.rehearse.rehearsal import Plan, Rehearsal, rehearse, workspace
from relume.rehearse.report import EXIT_STATUS, render, to_dict

__all__ = ["EXIT_STATUS", "Plan", "Rehearsal", "rehearse", "render", "to_dict", "workspace"]
