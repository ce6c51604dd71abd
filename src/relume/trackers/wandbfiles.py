"""Code and checkpoints of a run as W&B's artifacts."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.direction import mode_of
from relume.monitor.journal import number
from relume.trackers.contents import plain, plain_value
from relume.trackers.tracker import RunFacts

_EXPORT_SECONDS = 600


def send_code(run: Any, facts: RunFacts, sent: str) -> str:
    """The code that provenance has kept, as an artifact of type ``code``; returns what was sent, to be given next time."""
    record = facts.folder / "provenance.json"
    kept = [path for path in sorted((facts.folder / "code").rglob("*")) if path.is_file() and not path.is_symlink()]
    if not record.is_file():
        return sent
    state = hashlib.sha256(record.read_bytes() + "\n".join(map(str, kept)).encode("utf-8", "replace")).hexdigest()
    if state == sent:
        return sent
    if kept:
        name = _allowed(f"source-{facts.name}")
        run.log_code(str(facts.folder / "code"), name, include_fn=lambda path: True, exclude_fn=lambda path: False)
    run.save(str(record), base_path=str(facts.folder), policy="now")
    return state


@dataclass
class Models:
    """The checkpoints of a run as artifacts: which of them are there, and which were sent."""

    which: Any
    facts: RunFacts
    run: Any
    _sent: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _parent: str | None = None

    @property
    def _folder(self) -> Path:
        return self.facts.folder / "wandb" / "checkpoints"

    def say_where_from(self) -> None:
        """The checkpoint of another run from which this one began: as W&B's lineage where that run was sent there."""
        lineage = self.facts.lineage
        if not lineage:
            return
        self._parent = str(lineage.get("checkpoint") or "")
        self.run.summary.update({"from_checkpoint": plain(self._parent)})
        there = self._remembered_of(lineage)
        if there is None or self.run.offline:
            return
        name = f"{artifact_name(str(lineage.get('run_id')))}:{_allowed(Path(self._parent).name.split('@')[-1])}"
        try:
            self.run.use_artifact(name)
        except Exception:  # that checkpoint was never sent, or was deleted there: the summary says what it was
            pass

    def _remembered_of(self, lineage: Mapping[str, Any]) -> Mapping[str, Any] | None:
        path = self.facts.root / str(lineage.get("run")) / "trackers" / "wandb.json"
        try:
            held = json.loads(path.read_text("utf-8"))["remembered"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return held if isinstance(held, dict) else None

    def send(self, *, is_end: bool = False) -> None:
        """Send the checkpoints that are asked for and are not there yet."""
        found = saved_checkpoints(self.facts)
        if not found:
            return
        last = found[-1]["name"]
        best = next((item["name"] for item in found if item.get("is_best")), None)
        wanted = (
            found
            if self.which == "all"
            else [i for i in found if i["name"] in ((last, best) if self.which == "best" else (last,))]
        )
        for item in wanted:
            aliases = [_allowed(item["name"]), f"step-{item['step']}"]
            aliases += ["best"] if item["name"] == best else []
            aliases += ["last"] if item["name"] == last and is_end else []
            if self._sent.get(item["name"]) != tuple(aliases):
                self._send(item, aliases)
                self._sent[item["name"]] = tuple(aliases)

    def _send(self, item: Mapping[str, Any], aliases: list[str]) -> None:
        import wandb

        file = self._folder / f"{_allowed(item['name'])}.safetensors"
        if not file.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            export(self.facts, item["name"], file)
        metadata = {**plain_value(item), "run": plain(self.facts.name), "run_id": self.facts.id}
        if self._parent:
            metadata["from_checkpoint"] = plain(self._parent)
        artifact = wandb.Artifact(artifact_name(self.facts.id), "model", metadata=metadata)
        artifact.add_file(str(file), "model.safetensors", policy="immutable")
        manifest = self.facts.folder / "checkpoints" / f"{item['name']}.json"
        if manifest.is_file():
            artifact.add_file(str(manifest), "checkpoint.json")
        self.run.log_artifact(artifact, aliases=aliases)

    def sent(self) -> None:
        """W&B has all of it: weights that were only written to be sent are deleted. Offline files are sent later."""
        if not self.run.offline:
            shutil.rmtree(self._folder, ignore_errors=True)


def artifact_name(run_id: str) -> str:
    """The name under which all checkpoints of a run are versions."""
    return _allowed(f"checkpoint-{run_id}")


def saved_checkpoints(facts: RunFacts) -> list[dict[str, Any]]:
    """The checkpoints that a run has, oldest first, as their manifests describe them: no torch is needed for that.

    One of them ``is_best``, where a metric's name tells a direction: the loss of the validation, or else the first such.
    """
    found = []
    for path in sorted((facts.folder / "checkpoints").glob("[0-9]*.json")):
        try:
            meta = json.loads(path.read_bytes())["meta"]
            place = meta["cursor"]
            known = {
                "name": path.stem,
                "step": place["step"],
                "epoch": place["epoch"],
                "metrics": dict(meta["metrics"]),
            }
        except (OSError, ValueError, KeyError, TypeError):  # deleted just now, or damaged: relume verify says so
            continue
        found.append(known | {"reason": meta.get("reason"), "versions": meta.get("versions")})
    names = sorted({name for item in found for name in item["metrics"] if mode_of(name)}, key=_interest)
    if names:
        ranked = [item for item in found if item["metrics"].get(names[0]) is not None]
        max(reversed(ranked), key=lambda item: _goodness(names[0], item["metrics"][names[0]]))["is_best"] = True
    return found


def _interest(metric: str) -> tuple[bool, bool, str]:
    return not metric.startswith("val"), "loss" not in metric, metric


def _goodness(metric: str, value: Any) -> float:
    known = number(value)
    if known is None or known != known:
        return -math.inf
    return known if mode_of(metric) == "max" else -known


def export(facts: RunFacts, checkpoint: str, file: Path) -> None:
    """Write a checkpoint's weights as safetensors, in a process of its own: only it needs torch.

    Raises:
        RuntimeError: the checkpoint holds no single model, or is damaged; says what ``relume export`` says.
    """
    command = [sys.executable, "-m", "relume", "export", f"{facts.folder.name}@{checkpoint}", str(file)]
    command += ["--root", str(facts.root), "--force"]
    done = subprocess.run(command, capture_output=True, timeout=_EXPORT_SECONDS, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{checkpoint} cannot be sent: {done.stderr.decode('utf-8', 'replace').strip()[-500:]}")


def _allowed(name: str) -> str:
    """A name as W&B allows it for artifacts and aliases."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:120] or "unnamed"
