"""Trackers: what shows a run elsewhere, fed from its journal. Nothing here imports torch."""

from relume.trackers.rebuilding import trackers_of
from relume.trackers.tracker import KINDS, End, Resumed, RunFacts, Tracker

__all__ = ["KINDS", "End", "Resumed", "RunFacts", "Tracker", "trackers_of"]
