"""Monitoring: the journal and its index, the run's record and status, the console.

Nothing here imports torch but ``values``, so that a look at the runs does not wait for it.
"""

from relume.monitor.console import Reporter, reporter
from relume.monitor.index import columns, fold, metric_summary
from relume.monitor.journal import Journal
from relume.monitor.launch import Launch, launch_again
from relume.monitor.pace import Summary
from relume.monitor.record import Process, RunRecord, beat, find_run, jsonable, make_run_folder, runs_in, status_of

__all__ = [
    "Journal",
    "Launch",
    "Process",
    "Reporter",
    "RunRecord",
    "Summary",
    "beat",
    "columns",
    "find_run",
    "fold",
    "jsonable",
    "launch_again",
    "make_run_folder",
    "metric_summary",
    "reporter",
    "runs_in",
    "status_of",
]
