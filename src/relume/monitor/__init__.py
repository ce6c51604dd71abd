"""Monitoring: the journal and its index, the run's record and status, the console."""

from relume.monitor.console import Reporter, Summary, reporter
from relume.monitor.index import columns, fold, summary
from relume.monitor.journal import Journal
from relume.monitor.record import Process, RunRecord, beat, find_run, jsonable, make_run_folder, runs_in, status_of
from relume.monitor.values import Arriving, improves, is_better_lower, split

__all__ = [
    "Arriving",
    "Journal",
    "Process",
    "Reporter",
    "RunRecord",
    "Summary",
    "beat",
    "columns",
    "find_run",
    "fold",
    "improves",
    "is_better_lower",
    "jsonable",
    "make_run_folder",
    "reporter",
    "runs_in",
    "split",
    "status_of",
    "summary",
]
