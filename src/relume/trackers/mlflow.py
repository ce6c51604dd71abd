"""MLflow: params, metrics in batches, tags and artifacts of a run, on a server or in a database beside the runs."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import portalocker

from relume.direction import mode_of
from relume.errors import ConfigurationError
from relume.monitor.record import RunRecord
from relume.provenance.secrets import without_credentials
from relume.trackers.contents import plain
from relume.trackers.mlflowmedia import KINDS, write_artifact
from relume.trackers.mlflownames import allowed_name, as_param, params_of
from relume.trackers.packages import require
from relume.trackers.tracker import End, Resumed, RunFacts, Tracker

_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "killed": "KILLED", "failed": "FAILED"}
_ID_TAG = "relume.id"
_PARAMS_A_BATCH, _METRICS_A_BATCH, _TAG_CHARACTERS = 100, 1_000, 8_000


@dataclass
class MLflow(Tracker):
    """Show a run in MLflow.

    Metrics go in batches. A resume goes on with the same MLflow run. MLflow takes nothing back: what a resume computes
    once more, the same to the last bit, is not sent again; numbers that came out otherwise stand at their step beside the
    old ones, and the tag ``relume.resumed.N`` says from which step execution N went on. What is sent twice because a
    delivery was killed is one point still: MLflow knows it by name, step, time and value.

    MLflow's params cannot change: a setting that a resume changed stays as param what it was, and is the tag
    ``config.NAME`` with its new value. Names that MLflow does not allow are written with ``_`` and a mark that keeps
    them apart; values of more than 6,000 characters are cut. ``config.json`` among the artifacts has all as it is.

    Args:
        tracking_uri: a server (``"http://127.0.0.1:5000"``) or a database (``"sqlite:///mlflow.db"``); by default that of
            ``MLFLOW_TRACKING_URI``, else the database ``mlflow.db`` beside the runs. A password in it is not kept in the run's
            folder: for ``relume sync``, set ``MLFLOW_TRACKING_USERNAME`` and ``MLFLOW_TRACKING_PASSWORD``.
        experiment: its name; by default that of ``MLFLOW_EXPERIMENT_NAME``, else ``"relume"``.
        tags: beside those of the run: names to texts.
        run_name: what MLflow shows; by default the run's name.
        batch: metrics a request, at most 1,000.

    Raises:
        ConfigurationError: a value that is not allowed.

    Example:
        >>> MLflow(tracking_uri="http://127.0.0.1:5000", experiment="fashion").batch
        1000
    """

    tracking_uri: str | None = None
    experiment: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    run_name: str | None = None
    batch: int = _METRICS_A_BATCH
    _client: Any = field(default=None, init=False, repr=False, compare=False)
    _id: str = field(default="", init=False, repr=False, compare=False)
    _facts: Any = field(default=None, init=False, repr=False, compare=False)
    _waiting: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)
    _sent_code: tuple[Any, ...] = field(default=(), init=False, repr=False, compare=False)

    name = "mlflow"
    kinds = KINDS

    def __post_init__(self) -> None:
        for what in ("tracking_uri", "experiment", "run_name"):
            value = getattr(self, what)
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigurationError(f"MLflow({what}={value!r}): {what} must be text.")
        if not isinstance(self.tags, Mapping) or not all(isinstance(k, str) for k in self.tags):
            raise ConfigurationError(f"MLflow(tags={self.tags!r}): tags are names to texts: tags={{'team': 'vision'}}.")
        self.tags = {name: str(value) for name, value in self.tags.items()}
        if isinstance(self.batch, bool) or not isinstance(self.batch, int) or not 1 <= self.batch <= _METRICS_A_BATCH:
            raise ConfigurationError(f"MLflow(batch={self.batch!r}): batch must be a whole number from 1 to 1,000.")

    def check(self) -> None:
        require("mlflow")

    def open(self, run: RunFacts, resumed: Resumed | None) -> dict[str, Any]:
        os.environ.setdefault(
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2"
        )  # waiting for a server is not MLflow's affair here
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow import MlflowClient

        self._facts, self._waiting, self._sent_code = run, [], ()
        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _beside(run.root)
        with _translated(uri):
            with _alone(uri):
                self._client = MlflowClient(uri)  # looks into the database
                experiment = self._experiment_id(uri)
            self._id = self._run_id(experiment)
            self._client.update_run(self._id, status="RUNNING")
            self._send_config()
            self._send_tags(self._tags(resumed))
        shown = without_credentials(uri)
        url = f"{shown.rstrip('/')}/#/experiments/{experiment}/runs/{self._id}"
        return {"id": self._id, "experiment": experiment, "url": url if uri.startswith("http") else _how_to_look(shown)}

    def _experiment_id(self, uri: str) -> str:
        from mlflow.exceptions import MlflowException

        name = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "relume"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = (
                None
                if uri.startswith(("http", "databricks"))
                else (self._facts.root / "mlartifacts").resolve().as_uri()
            )
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException:  # another run has made it just now
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise ConfigurationError(
                f"MLflow's experiment {name!r} is deleted: restore it there (mlflow experiments restore "
                f"-x {found.experiment_id}), or give another name: relume.MLflow(experiment=...)."
            )
        return str(found.experiment_id)

    def _run_id(self, experiment: str) -> str:
        """The run of MLflow that was begun before, even where that could not be noted; or a new one."""
        remembered = self._facts.remembered.get("id")
        if remembered:
            return str(remembered)
        found = self._client.search_runs([experiment], f"tags.`{_ID_TAG}` = '{self._facts.id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        made = self._client.create_run(
            experiment,
            start_time=int(self._facts.created * 1000) or None,
            tags={_ID_TAG: self._facts.id},
            run_name=plain(self.run_name or self._facts.name),
        )
        return str(made.info.run_id)

    def _tags(self, resumed: Resumed | None) -> dict[str, str]:
        facts = self._facts
        record = RunRecord.load(facts.folder)
        tags = {
            "mlflow.source.name": record.argv[0] if record.argv else facts.name,
            "mlflow.source.type": "LOCAL",
            "relume.run": facts.name,
            "relume.folder": str(facts.folder),
            "relume.seed": str(facts.seed),
            **{f"tag.{tag}": "true" for tag in facts.tags},
            **self.tags,
        }
        if facts.notes:
            tags["mlflow.note.content"] = facts.notes
        if facts.lineage:
            tags["relume.from_checkpoint"] = str(facts.lineage.get("checkpoint"))
        if resumed is not None and resumed.is_new_segment:
            tags[f"relume.resumed.{facts.segment}"] = f"from step {resumed.step}, epoch {resumed.epoch}"
        return tags

    def _send_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(allowed_name(name), plain(value)[:_TAG_CHARACTERS]) for name, value in tags.items()]
        for begin in range(0, len(entities), _PARAMS_A_BATCH):
            self._client.log_batch(self._id, tags=entities[begin : begin + _PARAMS_A_BATCH])

    def _send_config(self) -> None:
        from mlflow.entities import Param

        there = self._client.get_run(self._id).data.params
        params, cut = params_of(self._facts.config)
        params["seed"] = params.get("seed", as_param(self._facts.seed)[0])
        new = [Param(name, value) for name, value in params.items() if name not in there]
        for begin in range(0, len(new), _PARAMS_A_BATCH):
            self._client.log_batch(self._id, params=new[begin : begin + _PARAMS_A_BATCH])
        changed = {f"config.{name}": value for name, value in params.items() if there.get(name, value) != value}
        if cut:
            changed["relume.cut"] = f"too long for a param, whole in config.json: {', '.join(cut)}"
        self._send_tags(changed)
        self._client.log_text(self._id, json.dumps(self._facts.config, indent=1, default=str), "config.json")

    def values(self, step: int, epoch: int, time: float, values: Mapping[str, float]) -> None:
        if len(self._waiting) >= self.batch:
            self._send_waiting()
        from mlflow.entities import Metric

        moment = round(time * 1000)
        self._waiting += [Metric(allowed_name(name), value, moment, step) for name, value in values.items()]

    def _send_waiting(self) -> None:
        while self._waiting:
            with _translated(""):
                self._client.log_batch(self._id, metrics=self._waiting[: self.batch])
            del self._waiting[: self.batch]

    def media(self, step: int, epoch: int, time: float, name: str, content: Mapping[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = write_artifact(Path(temporary), self._facts.folder, name, step, content)
            if folder is not None:
                with _translated(""):
                    self._client.log_artifacts(self._id, temporary)

    def event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "epoch_end" and type(event.get("step")) is int:
            self.values(event["step"], 0, float(event.get("time") or 0.0), {"epoch": float(event.get("epoch") or 0)})

    def flush(self) -> None:
        self._send_waiting()
        self._send_code()

    def _send_code(self) -> None:
        """The code that provenance has kept, when it is there and whenever it has changed."""
        folder = self._facts.folder
        kept = [folder / "provenance.json", *sorted((folder / "code").rglob("*"))]
        kept = [path for path in kept if path.is_file() and not path.is_symlink()]
        state = tuple((str(path), path.stat().st_mtime_ns) for path in kept)
        if state == self._sent_code:
            return
        with _translated(""):
            for path in kept:
                below = path.relative_to(folder).parent.as_posix()
                self._client.log_artifact(self._id, str(path), None if below == "." else below)
        self._sent_code = state

    def close(self, end: End | None) -> None:
        self.flush()
        if end is None:
            return
        from mlflow.entities import Metric

        known = {n: value for n, value in end.best.items() if mode_of(n) and not n.startswith(("system/", "freeze/"))}
        self._waiting += [Metric(allowed_name(f"best/{n}"), value, 0, end.step) for n, value in known.items()]
        self._send_waiting()
        with _translated(""):
            self._send_tags({"relume.status": end.status, "relume.reason": end.reason or "its process is gone"})
            self._client.set_terminated(self._id, _STATUS[end.status])


def _beside(root: Path) -> str:
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def _how_to_look(uri: str) -> str:
    return f"to look at it: mlflow ui --backend-store-uri {uri}"


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """MLflow makes a database's tables when it first looks into it, and fails where another process does so too."""
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///").partition("?")[0] + ".lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, portalocker.LockException):  # a file system without locks
            file = stack.enter_context(path.open("a"))
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE)
            stack.callback(portalocker.unlock, file)
        yield


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """MLflow's errors that pass (no network, a busy database) as ``OSError``, which is tried again later."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"):
            raise ConnectionError(
                f"MLflow{f' at {without_credentials(uri)}' if uri else ''} does not answer: {error!s:.300}"
            ) from error
        raise
