"""The magic ``%relume`` of IPython: runs, one run, comparisons and TensorBoard in the cell."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from relume.errors import ConfigurationError, RelumeError, closest
from relume.monitor.record import find_run
from relume.monitor.stored import StoredRun, StoredRuns, runs
from relume.trackers.board import help_the_magic, open_tensorboard

HELP = """\
%relume runs [--where "lr < 0.01"] [--sort val/accuracy] [--desc]
                             the runs with small curves, newest last
%relume show RUN             one run: its metrics, curves and settings
%relume compare RUN RUN…     what differs between runs
%relume plot RUN… [--metric "val/*"] [--x step|epoch|time] [--smooth 0.9] [--log]
                             their curves as a picture
%relume tensorboard [RUN…] [--height N] [--port N]
                             TensorBoard in the cell, on these runs or on all
%relume help                 this text
The runs are in ./runs, or in --root DIR. All but tensorboard give back what they show: found = %relume runs"""


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext relume`` calls."""
    shell.register_magic_function(_magic(shell), magic_kind="line", magic_name="relume")
    help_the_magic()


def unload_ipython_extension(shell: Any) -> None:
    """What ``%unload_ext relume`` calls."""
    shell.magics_manager.magics["line"].pop("relume", None)


def _magic(shell: Any) -> Callable[[str], Any]:
    usage_error = importlib.import_module("IPython.core.error").UsageError

    def relume(line: str) -> Any:
        """Runs in this notebook: %relume help"""
        try:
            return obey(line)
        except (RelumeError, OSError) as error:
            raise usage_error(str(error)) from None  # shown without a traceback

    relume.__doc__ = HELP
    return relume


def obey(line: str) -> Any:
    """Do what a line of ``%relume`` says; returns what is to be shown.

    Raises:
        ConfigurationError: the line is not understood; names what is known.

    Example:
        >>> import tempfile
        >>> obey(f"runs --root {tempfile.mkdtemp()}")
        <0 runs in ...>
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigurationError(f"%relume {line}: {error}.") from None
    command, rest = (words[0], words[1:]) if words else ("help", [])
    known: dict[str, Callable[[list[str]], Any]] = {
        "runs": _runs,
        "show": _show,
        "compare": _compare,
        "plot": _plot,
        "tensorboard": _tensorboard,
        "help": _help,
    }
    if command not in known:
        raise ConfigurationError(f"%relume knows no {command!r}: {closest(command, known)} %relume help says more.")
    return known[command](rest)


class _Parser(argparse.ArgumentParser):
    """Arguments of a magic: a mistake is an error of relume's, and ends no kernel."""

    def __init__(self, command: str, **runs: Any) -> None:
        super().__init__(prog=f"%relume {command}", add_help=False, allow_abbrev=False)
        self.add_argument("--root", type=Path, default=Path("runs"))
        if runs:
            self.add_argument("runs", metavar="RUN", **runs)

    def error(self, message: str) -> NoReturn:
        usage = io.StringIO()
        with contextlib.redirect_stderr(usage):
            self.print_usage(usage)
        raise ConfigurationError(f"{message}. {usage.getvalue().strip()}")


def _help(words: list[str]) -> None:
    print(HELP)  # noqa: T201


def _runs(words: list[str]) -> StoredRuns:
    parser = _Parser("runs")
    parser.add_argument("--where")
    parser.add_argument("--sort")
    parser.add_argument("--desc", action="store_true")
    given = parser.parse_args(words)
    if given.where is None and given.sort is None:
        return runs(given.root)
    from relume.recorded import choose, facts_below

    found = choose(facts_below(given.root), given.where, given.sort, descending=given.desc)
    is_sorted = given.sort is not None
    return StoredRuns([StoredRun(Path(facts["folder"])) for facts in found], given.root, best_first=is_sorted)


def _show(words: list[str]) -> StoredRun:
    given = _Parser("show", nargs=1).parse_args(words)
    return StoredRun.find(given.runs[0], given.root)


def _compare(words: list[str]) -> Any:
    given = _Parser("compare", nargs="+").parse_args(words)
    if len(given.runs) < 2:
        raise ConfigurationError(f"a comparison needs two runs at least; only {given.runs[0]!r} was given.")
    from relume.recorded import compare

    return compare(*given.runs, root=given.root)


def _plot(words: list[str]) -> Any:
    parser = _Parser("plot", nargs="+")
    parser.add_argument("--metric", action="append")
    parser.add_argument("--x", choices=("step", "epoch", "time"), default="step")
    parser.add_argument("--smooth", type=float, default=0.0)
    parser.add_argument("--log", action="store_true")
    given = parser.parse_args(words)
    from relume.recorded import plot

    picture = plot(*given.runs, metrics=given.metric, x=given.x, smooth=given.smooth, log=given.log, root=given.root)
    data = io.BytesIO()
    picture.savefig(data, format="png", dpi=110, bbox_inches="tight")
    return importlib.import_module("IPython.display").Image(
        data.getvalue()
    )  # a figure shows itself only in some backends


def _tensorboard(words: list[str]) -> None:
    parser = _Parser("tensorboard", nargs="*")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--port", type=int, default=None)
    given = parser.parse_args(words)
    folders = [find_run(name, given.root) for name in dict.fromkeys(given.runs)]
    if not folders and not given.root.is_dir():
        raise ConfigurationError(f"there is no folder {given.root}: --root says where the runs are.")
    open_tensorboard(folders, root=given.root, height=given.height, port=given.port)
