"""A training in a process of its own: ``python live_run.py ROOT NAME [SECONDS]``; one step each SECONDS, or each line that it reads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import relume


class Training:
    """A run of another process that makes a step when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def step(self, count: int = 1) -> None:
        """Log ``count`` more points; they stand in the journal when this returns."""
        assert self._process.stdin is not None and self._process.stdout is not None
        for _ in range(count):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def training(root: Path, name: str) -> Iterator[Training]:
    """A run called ``name`` below ``root`` that has begun; it finishes with the block."""
    environment = os.environ | {"PYTHONPATH": str(Path(relume.__file__).parents[1]), "RELUME_PROVENANCE": "off"}
    command = [sys.executable, __file__, str(root), name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield Training(process)
        if process.stdin is not None and process.poll() is None:
            process.stdin.close()


def _moments(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        for _ in sys.stdin:
            yield
            print("done", flush=True)
    else:
        for _ in range(1000):
            time.sleep(seconds)
            yield


def _main(root: str, name: str, seconds: float | None = None) -> None:
    with relume.Run(name, root=root, config={"lr": 0.01}, quiet=True) as run:
        print("begun", flush=True)
        for step, _ in enumerate(_moments(seconds)):
            run.log(
                {"train/loss": 2 * math.exp(-step / 60) + 0.05 * math.sin(step), "val/accuracy": 1 - 1 / (step + 2)},
                step=step,
            )


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:4]))
