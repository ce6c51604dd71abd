"""Work done in forked processes: an answer, an error, or the signal that ended it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Answer:
    """Of ``value``, ``error`` (its class and text) and ``signal`` (a number; SIGALRM: no answer in time) one is given."""

    value: Any = None
    error: str | None = None
    signal: int | None = None

    @property
    def is_good(self) -> bool:
        return self.error is None and self.signal is None


def ask(work: Callable[[], Any], timeout_seconds: int = 120) -> Answer:
    """What ``work`` returns in a forked process. Even BaseException is an error: DCP's is no Exception."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _silence()
        signal.alarm(timeout_seconds)
        try:
            answer = Answer(value=work())
        except BaseException as error:
            answer = Answer(error=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Answer(signal=os.WTERMSIG(status))
    return pickle.loads(data) if data else Answer(error=f"ended without an answer, wait status {status}")


def start(work: Callable[[Callable[[str, int], None]], None]) -> tuple[int, Any]:
    """Run ``work(tell)`` in a forked process; returns its id and a file with a JSON line for each ``tell(what, number)``."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        _silence()

        def tell(what: str, number: Any) -> None:
            os.write(write, (json.dumps([what, number]) + "\n").encode())

        try:
            work(tell)
        except BaseException as error:
            tell("error", f"{type(error).__name__}: {error}")
        os._exit(1)
    os.close(write)
    return child, os.fdopen(read)


def prepare() -> None:
    """One thread (a fork has no more), and no words from the libraries."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "accelerate", "ignite", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
