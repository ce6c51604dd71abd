"""The program ``relume``: commands, exit status, and how errors are shown."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import warnings
from typing import Any, NoReturn

import typer

from relume.cli.checkpoints import checkpoints, verify
from relume.cli.checkpoints import gc as collect
from relume.cli.code import restore_code
from relume.cli.doctor import doctor
from relume.cli.exchange import pull, push
from relume.cli.export import export
from relume.cli.models import convert, diff, inspect, summary
from relume.cli.output import say
from relume.cli.predict import predict
from relume.cli.recorded import compare, history, import_app, plot
from relume.cli.rehearse import PASSES_ARGUMENTS, rehearse
from relume.cli.report import report
from relume.cli.reproduce import reproduce
from relume.cli.resume import resume
from relume.cli.runs import runs, show
from relume.cli.share import pack
from relume.cli.sync import sync
from relume.cli.tensorboard import tensorboard
from relume.cli.train import train
from relume.cli.ui import ui
from relume.cli.unpack import unpack
from relume.errors import RelumeError, RelumeWarning
from relume.version import __version__

INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended

app = typer.Typer(
    name="relume",
    help="Train, monitor and compare PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(predict)
app.command()(runs)
app.command()(show)
app.command()(resume)
app.command()(reproduce)
app.command(context_settings=PASSES_ARGUMENTS)(rehearse)
app.command()(doctor)
app.command()(checkpoints)
app.command()(verify)
app.command()(export)
app.command("gc")(collect)
app.command("restore-code")(restore_code)
app.command()(pack)
app.command()(push)
app.command()(pull)
app.command()(sync)
app.command()(ui)
app.command()(tensorboard)
app.command()(unpack)
app.command()(inspect)
app.command()(convert)
app.command()(diff)
app.command()(summary)
app.command()(compare)
app.command()(plot)
app.command()(history)
app.command()(report)
app.add_typer(import_app, name="import")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relume {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main() -> NoReturn:
    """Run the program and leave.

    Collecting garbage while torch is imported, and taking the interpreter down afterwards, cost 0.8 s together and
    serve nobody: both are left out.
    """
    gc.disable()
    warnings.showwarning = _show_warning
    status = _status()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)


def _status() -> int:
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except RelumeError as error:
        say("Error", "bold red", str(error))
        return 1
    except BrokenPipeError:  # the reader of a pipe has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """relume's own warnings are for the user and need no source line."""
    if issubclass(category, RelumeWarning):
        say("Warning", "bold yellow", str(message))
    else:
        filename, line = place[:2]
        sys.stderr.write(warnings.formatwarning(message, category, filename, line))
