"""Other programs that a command starts: none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def child(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    directory: str | os.PathLike[str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a process group of its own, which does not outlive the block.

    Args:
        environment: all of its variables.
        output: a file descriptor for what it prints.
        directory: where it runs; by default here.
    """
    process = subprocess.Popen(
        list(arguments),
        env=dict(environment),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_group(process)
            process.wait()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a child that `child` started, and its own children, as a power cut would."""
    if sys.platform == "win32":
        import psutil

        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)  # it leads its group, and is not reaped yet: the number is its own
    except ProcessLookupError:
        pass


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that children and temporary folders go."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    try:
        before = {number: signal.signal(number, leave) for number in numbers}
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
