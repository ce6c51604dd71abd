"""Trackers as a user might write them, and journals to feed them from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relume.monitor.journal import Journal, next_segment
from relume.monitor.record import Process, RunRecord
from relume.trackers.follow import Follower
from relume.trackers.rebuilding import spec_of
from relume.trackers.state import FOLDER, State, held
from relume.trackers.tracker import End, Resumed, RunFacts, Tracker


@dataclass
class ToFile(Tracker):
    """One line of JSON for each call, in a file of the run's folder; it can forget."""

    file: str = "seen.jsonl"
    fail_at: int | None = None
    hang_at: int | None = None
    name = "tofile"
    kinds = frozenset(("text",))
    forgets = True

    def open(self, run: RunFacts, resumed: Resumed | None) -> dict[str, Any]:
        self._path = run.folder / self.file
        if resumed is not None and resumed.first is not None and self._path.exists():
            lines = seen(self._path)
            stays = [line for line in lines if line.get("step", -1) < resumed.first or line["call"] == "open"]
            self._path.write_text("".join(json.dumps(line) + "\n" for line in stays))
        self._waiting: list[dict[str, Any]] = []
        self._put(
            call="open", first=resumed and resumed.first, at=resumed and resumed.step, remembered=dict(run.remembered)
        )
        self.flush()
        return {"opened": run.remembered.get("opened", 0) + 1, "url": "http://127.0.0.1/run"}

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        if step == self.fail_at:
            raise ValueError(f"I do not like step {step}")
        if step == self.hang_at:
            hang()
        self._put(call="values", step=step, epoch=epoch, time=time, values={n: repr(v) for n, v in values.items()})

    def media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        self._put(call="media", step=step, name=name, content=dict(content))

    def event(self, event: Mapping[str, Any]) -> None:
        self._put(call="event", event=event["event"], step=event.get("step", -1))

    def flush(self) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in self._waiting)
        except OSError:
            os.truncate(self._path, size)
            raise
        self._waiting.clear()

    def close(self, end: End | None) -> None:
        if end is not None:
            self._put(call="close", status=end.status, reason=end.reason, best=dict(end.best), last=dict(end.last))
        self.flush()

    def _put(self, **line: Any) -> None:
        self._waiting.append(line)


class Mine(Tracker):
    """A tracker with a state of its own, which no other process can have; it cannot forget."""

    name = "mine"

    def __init__(self, on_values: Callable[[int], None] = lambda step: None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.on_values = on_values

    def open(self, run: RunFacts, resumed: Resumed | None) -> None:
        self.calls.append(("open", resumed))

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        self.on_values(step)
        self.calls += [("value", (name, step, value)) for name, value in values.items()]

    def close(self, end: End | None) -> None:
        self.calls.append(("close", end and end.status))

    def numbers(self, name: str = "loss") -> list[tuple[int, float]]:
        return [(step, value) for call, (logged, step, value) in self.values_given() if logged == name]

    def values_given(self) -> list[tuple[str, Any]]:
        return [call for call in self.calls if call[0] == "value"]


def hang() -> None:
    while True:
        time.sleep(1)


def seen(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ------------------------------------------------------------------------------------------------------------- journals


def begin(folder: Path, *, is_alive: bool = False, config: Mapping[str, Any] | None = None) -> Path:
    """A run's folder, without a journal yet; its process is this one, or one that is gone."""
    process = Process.current()
    if not is_alive:
        process = process.model_copy(update={"started": 1.0})
    (folder / "journal").mkdir(parents=True, exist_ok=True)
    (folder / FOLDER).mkdir(exist_ok=True)
    RunRecord(name=folder.name, id="id-1", created=1.7e9, seed=3, config=dict(config or {}), process=process).save(
        folder
    )
    return folder


@contextmanager
def segment(folder: Path, resumed: tuple[int, int, int] | None = None) -> Iterator[Journal]:
    """A new segment of the journal; ``resumed`` is (segment, bytes, step)."""
    number = next_segment(folder)
    origin = None
    if resumed is not None:
        origin = {"segment": resumed[0], "position_bytes": resumed[1], "step": resumed[2], "epoch": 0}
    header = {"run": folder.name, "id": "id-1", "segment": number, "resumed": origin}
    journal = Journal(folder / "journal" / f"{number:04d}.jsonl", header)
    try:
        yield journal
    finally:
        journal.close()


def log(journal: Journal, steps: range, scale: float = 1.0, **more: float) -> None:
    for step in steps:
        journal.values(step, 1, {"loss": scale / (step + 1), **more}, None)


def end(journal: Journal, status: str = "finished", step: int = 0) -> None:
    journal.write({"event": "end", "status": status, "reason": "all done", "seconds": 2.5, "step": step, "epoch": 1})


def deliver(folder: Path, tracker: Tracker, pause: Callable[[float], bool] = lambda seconds: True) -> State:
    """Follow in this process and thread, up to what there is."""
    with held(folder, tracker.name) as is_mine:
        assert is_mine
        return Follower(folder, tracker, spec_of(tracker), pause).run()


def end_process(pid: int) -> None:
    """End a worker that this test has made."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        pass
