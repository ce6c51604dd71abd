"""A run as relume writes it, made by hand in a few lines: for what the rehearsal reads, without what it is to test."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from relume.checkpoint import Store
from relume.monitor import Journal, Process, RunRecord


class TinyRun:
    def __init__(self, name: str, *, root: str | Path | None = None, every: int = 5, seed: int = 0) -> None:
        self.root = Path(root or os.environ["RELUME_ROOT"])
        self.name, self.every = name, int(os.environ.get("RELUME_EVERY", str(every)).split()[0])
        self.folder = self.root / name
        self.store = Store(self.root)
        loaded = self.store.load_newest(f"{name}/checkpoints")
        self.state: dict[str, Any] = loaded.state if loaded else {}
        meta = self.store.meta(loaded.checkpoint) if loaded else {"cursor": {"step": 0}}
        self.step: int = meta["cursor"]["step"]
        (self.folder / "journal").mkdir(parents=True, exist_ok=True)
        self.segment = len(list((self.folder / "journal").iterdir())) + 1
        RunRecord(name=name, id="1", created=time.time(), seed=seed, process=Process.current()).save(self.folder)
        header: dict[str, Any] = {"run": name, "segment": self.segment}
        if loaded:
            header["resumed"] = meta["journal"]
        self.journal = Journal(self.folder / "journal" / f"{self.segment:04d}.jsonl", header)

    def steps(self, count: int) -> Iterator[int]:
        while self.step < count:
            self.step += 1
            yield self.step
            if self.step % self.every == 0 or self.step == count:
                self.save()
        self.journal.write({"event": "end", "step": self.step, "time": time.time()})
        self.journal.close()

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        self.journal.values(self.step if step is None else step, 1, dict(values), None)

    def save(self) -> None:
        position = {"segment": self.segment, "position_bytes": self.journal.position_bytes}
        meta = {"cursor": {"step": self.step, "epoch": 0, "batch": self.step}, "journal": position, "device": "cpu"}
        self.store.save(self.state, meta, folder=f"{self.name}/checkpoints", label=f"step={self.step}")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
