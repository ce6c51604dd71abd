"""Weights & Biases: numbers, media, config, code and checkpoints of a run, online or as files for ``wandb sync``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from relume.direction import improves
from relume.errors import ConfigurationError, closest
from relume.monitor.journal import number
from relume.trackers import wandbmedia
from relume.trackers.contents import plain
from relume.trackers.packages import require
from relume.trackers.tracker import End, Resumed, RunFacts, Tracker
from relume.trackers.wandbfiles import Models, send_code
from relume.trackers.wandbrun import begin, given_lines, mode_of_environment, summary_of

Mode = Literal["online", "offline", "disabled"]
Artifacts = Literal["best", "last", "all", False]
_NEVER_BEST = ("system/", "freeze/")


@dataclass
class WandB(Tracker):
    """Show a run in Weights & Biases.

    W&B runs in a process of its own, away from the training. The run keeps its id, so a resume goes on with the same one.
    relume's step is a metric of its own (``step``, the x axis of all charts): W&B's rule that its own step may only grow
    drops nothing. Offline, each resume writes the run's files anew and whole, without what counts no more; ``wandb sync``
    takes them at any time. Online, W&B cannot take rows back: what a resume computes once more, the same to the last
    bit, is not sent again; numbers that came out otherwise are sent as well, behind the old ones.

    Args:
        project, entity, group, job_type, notes: as ``wandb.init`` has them; ``project`` is by default that of
            ``WANDB_PROJECT``, else ``"relume"``; ``notes`` those of the run.
        tags: beside those of the run.
        run_name: what W&B shows; by default the run's name.
        mode: ``"online"``, ``"offline"`` or ``"disabled"``; by default that of ``WANDB_MODE``, else online where a login
            is found and offline where there is none. A run keeps the mode that it began with.
        code: send the code that the run's provenance has kept.
        artifacts: which checkpoints become artifacts (weights as safetensors): ``"best"`` sends the best and the last at
            the run's end, ``"last"`` the last, ``"all"`` each as soon as it is saved, ``False`` none.
        alert_on_failure: send an alert when the run fails or is killed.

    ``relume train`` is a program for sweeps: the agent's variables (``WANDB_SWEEP_ID``, ``WANDB_RUN_ID``) are taken over.
    A ``sweep.yaml``::

        method: bayes
        metric: {name: best/val/accuracy, goal: maximize}
        parameters:
          lr: {distribution: log_uniform_values, min: 0.0001, max: 0.1}
          batch-size: {values: [32, 64, 128]}
        command: ["/usr/bin/env", RELUME_TRACKERS=wandb, relume, train, fashion-mnist, --quiet, "${args}"]

    Raises:
        ConfigurationError: a value that is not allowed.

    Example:
        >>> WandB(project="fashion", tags=("baseline",), mode="offline").tags
        ['baseline']
    """

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: Any = ()
    notes: str | None = None
    run_name: str | None = None
    mode: Mode | None = None
    code: bool = True
    artifacts: Artifacts = "best"
    alert_on_failure: bool = True
    _run: Any = field(default=None, init=False, repr=False, compare=False)
    _facts: Any = field(default=None, init=False, repr=False, compare=False)
    _best: dict[str, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    _models: Any = field(default=None, init=False, repr=False, compare=False)
    _sent_code: str = field(default="", init=False, repr=False, compare=False)
    _mode: str = field(default="", init=False, repr=False, compare=False)
    _remembered: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _unsure: list[Callable[[], None]] = field(default_factory=list, init=False, repr=False, compare=False)
    _is_broken: bool = field(default=False, init=False, repr=False, compare=False)

    name = "wandb"
    kinds = wandbmedia.KINDS

    def __post_init__(self) -> None:
        for what in ("project", "entity", "group", "job_type", "notes", "run_name"):
            value = getattr(self, what)
            if value is not None and not isinstance(value, str):
                raise ConfigurationError(f"WandB({what}={value!r}): {what} must be text.")
        if isinstance(self.tags, str) or not all(isinstance(tag, str) for tag in self.tags):
            raise ConfigurationError(f"WandB(tags={self.tags!r}): tags must be several texts: tags=('a', 'b').")
        self.tags = list(self.tags)
        if self.mode not in (None, "online", "offline", "disabled"):
            raise ConfigurationError(
                f"WandB(mode={self.mode!r}): {closest(str(self.mode), ('online', 'offline', 'disabled'))}"
            )
        if self.artifacts not in ("best", "last", "all", False):
            raise ConfigurationError(
                f"WandB(artifacts={self.artifacts!r}): {closest(str(self.artifacts), ('best', 'last', 'all'))} "
                "Or False, for none."
            )

    @property
    def forgets(self) -> bool:  # type: ignore[override]
        """Offline files are written anew, without what counts no more; a W&B server takes nothing back."""
        return self._mode == "offline"

    def check(self) -> None:
        require("wandb")

    def open(self, run: RunFacts, resumed: Resumed | None) -> dict[str, Any]:
        self._leave()
        self._mode = ""  # what was given before is written below, all of it, and by nobody else
        mode = run.remembered.get("mode") or self.mode or mode_of_environment()
        if mode == "disabled":
            return {"mode": mode}
        self._facts, self._best, self._sent_code = run, {}, ""
        self._begin(run, mode)
        folder = Path(self._run.dir).parent
        shown = self._run.url if mode == "online" else f"offline; to send it: wandb sync {folder}"
        self._remembered = {"id": self._run.id, "mode": mode, "folder": folder.name, "url": shown}
        return self._remembered

    def _begin(self, run: RunFacts, mode: str) -> None:
        self._run = begin(self, run, mode)
        self._models = Models(self.artifacts, run, self._run)
        if mode == "offline":
            self._write_again(run)
            own = re.compile(rf"offline-run-\w+-{re.escape(self._run.id)}(-\d+)?")  # W&B counts those of one second
            for folder in (run.folder / "wandb").iterdir():
                if own.fullmatch(folder.name) and folder.name != Path(self._run.dir).parent.name:
                    shutil.rmtree(folder, ignore_errors=True)
        self._models.say_where_from()
        self._mode, self._is_broken = mode, False

    def _write_again(self, run: RunFacts) -> None:
        """All that was given before and counts still, into new files."""
        for line in given_lines(run.folder, self.name):
            place = (line.get("step", 0), line.get("epoch", 0), number(line.get("time")) or 0.0)
            if isinstance(line.get("values"), dict):
                read = {name: number(value) for name, value in line["values"].items()}
                self._give_values(*place, {name: value for name, value in read.items() if value is not None})
            for name, content in line["media"].items() if isinstance(line.get("media"), dict) else ():
                if content.get("kind") in self.kinds:
                    self._give_media(*place, name, content)
            if line.get("event") not in (None, "end"):
                self.event(line)
        self._run.summary.get("step")

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        self._safely(lambda: self._give_values(step, epoch, time, values))

    def media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        self._safely(lambda: self._give_media(step, epoch, time, name, content))

    def _safely(self, give: Callable[[], None]) -> None:
        """Give it; where W&B's own process is gone, another one is begun and gets what the old one may not have kept.

        Raises:
            ConnectionError: it is gone.
        """
        if self._run is None:
            return
        if self._is_broken:
            self._begin_again()
        try:
            give()
        except (ConnectionError, EOFError, BrokenPipeError, TimeoutError) as error:
            self._is_broken = True
            raise ConnectionError(
                f"W&B's own process does not answer ({type(error).__name__}: {error!s:.200})"
            ) from error
        self._unsure.append(give)

    def _begin_again(self) -> None:
        import wandb

        wandb.teardown(exit_code=1)
        self._begin(replace(self._facts, remembered=self._remembered), self._mode)
        self._remembered["folder"] = Path(self._run.dir).parent.name
        for give in self._unsure:
            give()

    def _give_values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        row: dict[str, Any] = {_shown_name(name): value for name, value in values.items()}
        self._run.log({"epoch": epoch} | row | {"step": step, "_timestamp": time})
        for name, value in values.items():
            if improves(name, value, self._best.get(name)) and not name.startswith(_NEVER_BEST):
                self._best[name] = value

    def _give_media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        if content["kind"] == "hparams":
            self._run.summary.update(summary_of("best/", content.get("metrics") or {}))
            return
        shown = wandbmedia.shown(self._facts.folder, name, content)
        self._run.log({_shown_name(name): shown, "step": step, "epoch": epoch, "_timestamp": time})

    def event(self, event: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        if event.get("event") == "epoch_end":
            self._run.summary.update(summary_of("best/", self._best))

    def flush(self) -> None:
        if self._run is None:
            return
        if self._is_broken:
            self._begin_again()
        self._run.summary.get("step")  # asked and answered: W&B's process has all that was sent before
        self._unsure.clear()
        if self.code:
            self._sent_code = send_code(self._run, self._facts, self._sent_code)
        if self.artifacts == "all":
            self._models.send()

    def close(self, end: End | None) -> None:
        if self._run is None:
            return
        if end is None:
            self._leave()
            return
        self._run.summary.update(summary_of("", end.last) | summary_of("best/", self._best | _bests(end.best)))
        self._run.summary.update({"status": end.status, "reason": plain(end.reason)})
        self.flush()
        if self.artifacts:
            self._models.send(is_end=True)
        if self.alert_on_failure and end.status in ("failed", "killed"):
            self._alert(end)
        if end.status == "interrupted" and end.reason != "Ctrl-C":
            self._run.mark_preempting()
        run, self._run, self._mode = self._run, None, ""
        run.finish(exit_code=0 if end.status == "finished" else 1)
        self._models.sent()

    def _alert(self, end: End) -> None:
        title = f"{plain(self._facts.name)} {end.status if end.status == 'failed' else 'was killed'}"[:63]
        text = f"{plain(end.reason) or 'Its process is gone.'} (step {end.step}, epoch {end.epoch})"
        self._run.alert(title, text, level="ERROR")

    def _leave(self) -> None:
        """End W&B's process, and leave the run open."""
        run, self._run, self._mode = self._run, None, ""
        if run is not None:
            run.mark_preempting()
            run.finish(exit_code=1)


def _shown_name(name: str) -> str:
    """A metric's name in W&B, which keeps names with a leading underscore for itself."""
    name = plain(name)
    return f"logged/{name}" if name.startswith("_") or name == "step" else name or "unnamed"


def _bests(best: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in best.items() if not name.startswith(_NEVER_BEST)}


def stop_training(folder: Path) -> None:
    """W&B's stop button, and its sweeps that end a trial early: the training saves and ends."""
    import signal

    from relume.monitor.record import RunRecord

    process = RunRecord.load(folder).process
    if process.is_here() and process.is_alive() and process.pid != os.getpid():
        os.kill(process.pid, signal.SIGTERM)
