"""Trackers that go wrong, for bench/broken.py: they are rebuilt by name in processes of their own."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relume import Tracker
from relume.trackers.tracker import Resumed, RunFacts


class Opened(Tracker):
    def open(self, run: RunFacts, resumed: Resumed | None) -> None:
        pass


@dataclass
class Raises(Opened):
    name: str = "raises"

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        raise RuntimeError("out of order")


@dataclass
class Hangs(Opened):
    name: str = "hangs"

    def values(self, step: int, epoch: int, moment: float, values: Mapping[str, float]) -> None:
        time.sleep(60)


@dataclass
class FullDisk(Opened):
    name: str = "fulldisk"

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


BY_NAME: dict[str, Any] = {"raises": Raises, "hangs": Hangs, "full disk": FullDisk}
