"""TensorBoard: event files below the run's folder, so that ``tensorboard --logdir runs`` shows all runs."""

from __future__ import annotations

import time as clock
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relume.trackers.packages import require
from relume.trackers.tensorboard.events import EventFile, clear, event_files, next_file
from relume.trackers.tracker import KINDS, End, Resumed, RunFacts, Tracker

if TYPE_CHECKING:
    from tensorboard.compat.proto import event_pb2

FOLDER = "tensorboard"
NOTES = "notes"
EPOCH = "epoch"
_BEYOND_ALL = 2**62
_EPOCHS_DONE = "Epochs done."


@dataclass
class TensorBoard(Tracker):
    """Write TensorBoard's event files.

    Shown are numbers, all kinds of media, the configuration (HParams), and the run's notes as text. At the end of each
    epoch its number is written as the scalar ``epoch``. TensorBoard keeps numbers as 32-bit floats; the run's own record
    keeps them exactly. After a resume, what the run has gone back behind is taken out of the files.

    Args:
        folder: where to write, in a folder named like the run; by default ``tensorboard`` in the run's own folder.

    Example:
        >>> TensorBoard().name
        'tensorboard'
    """

    folder: str | None = None

    name = "tensorboard"
    kinds = KINDS
    forgets = True

    def check(self) -> None:
        """Whether the package is there.

        Raises:
            MissingPackageError: it is not.
        """
        require("tensorboard")

    def open(self, run: RunFacts, resumed: Resumed | None) -> Mapping[str, Any]:
        require("tensorboard")
        from relume.trackers.tensorboard import summaries

        self._summaries = summaries
        self._run = run
        self._place = Path(self.folder, run.name) if self.folder else run.folder / FOLDER
        self._place.mkdir(parents=True, exist_ok=True)
        self._kinds: dict[str, str] = {}
        self._hparams = dict(run.config)
        self._last = (0, run.created)
        self._begin(None if resumed is None else resumed.first)
        return {"folder": str(self._place.absolute())}

    def _begin(self, first: int | None) -> None:
        """A new file; from the old ones goes everything from step ``first`` on, and what the HParams tab was told."""
        from tensorboard.compat.proto import event_pb2

        self._event = event_pb2.Event
        for path in event_files(self._place):
            clear(path, lambda event: self._stays(event, first))
        self._file = EventFile(next_file(self._place, self._run.created), clock.time())
        # A TensorBoard that has read the old files purges from this step on; it takes the first such mark for no restart.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        step = _BEYOND_ALL if first is None else first
        self._file.add(event_pb2.Event(wall_time=clock.time(), step=step, session_log=start))
        if self._hparams:
            summary = self._summaries.session_start(self._hparams, self._run.name, self._run.created)
            self._add(0, self._run.created, [summary])
        self._file.flush()

    def _stays(self, event: event_pb2.Event, first: int | None) -> bool:
        kind = event.WhichOneof("what")
        if kind == "session_log":
            return False
        if kind == "summary":
            if any(value.tag in self._summaries.SESSION_TAGS for value in event.summary.value):
                return False
            if first is None or event.step < first:
                for value in event.summary.value:
                    self._kinds.setdefault(value.tag, _kind_of(value))
        return kind == "file_version" or first is None or event.step < first

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        if EPOCH in values:
            self._kinds[EPOCH] = "scalar"  # the run has its own
        made = self._summaries.scalar
        self._add(step, time, [made(self._tag(name, "scalar"), value) for name, value in values.items()])

    def media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        kind = content["kind"]
        if kind == "graph":
            self._file.add(
                self._event(wall_time=time, step=step, graph_def=self._summaries.graph(content, self._run.folder))
            )
        elif kind == "hparams":
            self._hparams |= content["values"]
            self._file.close()
            self._begin(None)
            metrics = {name: value for name, value in content.get("metrics", {}).items() if value is not None}
            made = [self._summaries.scalar(self._result_tag(n), float(v)) for n, v in metrics.items()]
            self._add(step, time, made)
        else:
            made = list(self._summaries.MAKE[kind](_clean(name), content, self._run.folder))
            shown = {"figure": "image", "table": "text"}.get(kind, kind)
            if kind == "confusion_matrix":
                shown = "image" if made[0].HasField("image") else "text"
            for value in made:
                value.tag = self._tag(value.tag, shown)
            self._add(step, time, made)

    def event(self, event: Mapping[str, Any]) -> None:
        kind, step, time = event.get("event"), event.get("step"), event.get("time")
        if type(step) is not int or not isinstance(time, (int, float)):
            return
        if kind == "epoch_end" and isinstance(event.get("epoch"), int):
            if self._kinds.setdefault(EPOCH, EPOCH) == EPOCH:
                self._add(step, time, [self._summaries.scalar(EPOCH, event["epoch"], _EPOCHS_DONE)])
        elif kind in ("note", "resume") and isinstance(event.get("text"), str):
            self._add(step, time, [self._summaries.markdown(self._tag(NOTES, "text"), event["text"])])

    def flush(self) -> None:
        self._file.flush()

    def close(self, end: End | None) -> None:
        if end is not None and self._hparams:
            self._add(0, clock.time(), [self._summaries.session_end(end.status, clock.time())])
        self._file.close()

    def _add(self, step: int, time: float, values: Iterable[Any]) -> None:
        event = self._event(wall_time=time, step=step)
        event.summary.value.extend(values)
        self._file.add(event)

    def _result_tag(self, name: str) -> str:
        """A tag for a result beside hyperparameters: a curve of that name must not get a second value at its step."""
        return f"hparams/{_clean(name)}" if _clean(name) in self._kinds else _clean(name)

    def _tag(self, name: str, kind: str) -> str:
        """A tag for a name: TensorBoard shows only one kind under each."""
        tag = _clean(name)
        if self._kinds.setdefault(tag, kind) == kind:
            return tag
        return f"{tag} ({kind.replace('_', ' ')})"


def _kind_of(value: Any) -> str:
    """The kind of a value, as :meth:`TensorBoard._tag` names it."""
    field = value.WhichOneof("value")
    if field == "tensor":
        plugin = value.metadata.plugin_data.plugin_name
        return {"pr_curves": "pr_curve"}.get(plugin) or str(plugin)
    if value.metadata.summary_description == _EPOCHS_DONE:
        return EPOCH
    return {"simple_value": "scalar", "histo": "histogram"}.get(field) or str(field)


def _clean(name: str) -> str:
    return name.encode("utf-8", "replace").decode() or "(no name)"
