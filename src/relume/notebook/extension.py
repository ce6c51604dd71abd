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
%relume runs [--root DIR]                         the runs, newest last, with small curves
%relume show RUN [--root DIR]                     one run: its metrics, curves and settings
%relume compare RUN RUN… [--root DIR]             what differs between runs
%relume tensorboard [RUN…] [--height N] [--port N] [--root DIR]
                                                  TensorBoard in the cell, on these runs or on all
%relume help                                      this text
The runs are in ./runs, or where --root says. Each command gives back what it shows: found = %relume runs"""


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
    known = {"runs": _runs, "show": _show, "compare": _compare, "tensorboard": _tensorboard, "help": _help}
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
    return runs(_Parser("runs").parse_args(words).root)


def _show(words: list[str]) -> StoredRun:
    given = _Parser("show", nargs=1).parse_args(words)
    return StoredRun.find(given.runs[0], given.root)


def _compare(words: list[str]) -> Any:
    given = _Parser("compare", nargs="+").parse_args(words)
    if len(given.runs) < 2:
        raise ConfigurationError(f"a comparison needs two runs at least; only {given.runs[0]!r} was given.")
    relume = importlib.import_module("relume")
    return relume.compare(*given.runs, root=given.root)


def _tensorboard(words: list[str]) -> None:
    parser = _Parser("tensorboard", nargs="*")
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--port", type=int, default=None)
    given = parser.parse_args(words)
    folders = [find_run(name, given.root) for name in dict.fromkeys(given.runs)]
    if not folders and not given.root.is_dir():
        raise ConfigurationError(f"there is no folder {given.root}: --root says where the runs are.")
    open_tensorboard(folders, root=given.root, height=given.height, port=given.port)
