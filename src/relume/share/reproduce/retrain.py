"""Training again: the bundle's command in a temporary folder, and its checkpoint beside the bundle's."""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relume.checkpoint import Checkpoint, Store
from relume.errors import BundleError, RelumeError
from relume.models.checkpointfile import checkpoint_state
from relume.processes import child, ended_by_signals
from relume.share import documents
from relume.share.bundle import Bundle
from relume.share.documents import Claims, CodeFacts, Environment, RunFacts
from relume.share.reproduce.command import Command, checked_script, command_of
from relume.share.reproduce.environment import same_arithmetic
from relume.share.reproduce.fresh import Fresh, fresh_environment
from relume.share.reproduce.metrics import measured, names_of
from relume.share.reproduce.numbers import compare_value, difference, metric_tolerance
from relume.share.reproduce.subject import Subject, unchecked
from relume.share.reproduce.verdicts import Row, Stage, Verdict
from relume.share.weights import weights_digest

ACCURACY_ELSEWHERE = 0.01
LOSS_ELSEWHERE = 0.05
TOLERANCE = (
    "On the author's processor and versions: as for metrics, and the weights to the last bit. Elsewhere a training takes "
    f"another path from its first other digit on: accuracy within {ACCURACY_ELSEWHERE:g}, other metrics within "
    f"{LOSS_ELSEWHERE:.0%} of their value."
)
_POLL_SECONDS = 0.05
_TAIL_LINES = 6
_LABEL = re.compile(r"epoch=(\d+)-step=(\d+)(?:-|$)")
_DROPPED = ("RELUME_", "WANDB_", "MLFLOW_", "PYTHONPATH_", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Retrained:
    """A training that was done again.

    Attributes:
        state: weights at the bundle's step.
        metrics: what the run had measured there.
        seconds: that it took.
    """

    state: Mapping[str, torch.Tensor]
    metrics: Mapping[str, float]
    seconds: float


class _OtherPathError(Exception):
    """The training went by without the checkpoint."""


def training(subject: Subject, author: Environment | None, fresh: bool, timeout_seconds: float | None) -> Stage:
    """Train again as the author did, and compare weights and metrics at the bundle's step."""
    author = author or Environment()
    rows: list[Row] = []
    try:
        code = _code_of(subject)
        command = command_of(code, subject.path)
        if command.needs_code and not subject.trust:
            raise BundleError(
                f"{documents.CODE_FOLDER}{code.script} is code of the bundle, "
                "which runs only when it is trusted (--trust, trust=True)"
            )
        with ended_by_signals(), workspace() as folder:
            made = fresh_environment(folder, author.packages) if fresh else None
            found = retrained(
                subject.bundle, code, command, subject.run(), author, folder, made, timeout_seconds, subject.path
            )
            here = subject.here.model_copy(update={"packages": author.packages}) if fresh else subject.here
            rows = _compared(subject, found, same_arithmetic(author, here))
            if made is not None:
                rows[0] = _in_fresh(made, rows[0])
    except _OtherPathError as error:
        rows.append(Row(claim="checkpoint", verdict=Verdict.DIFFERENT, why=str(error)))
    except (RelumeError, OSError) as error:
        rows.append(unchecked("training again", error))
    return Stage(name="training", rows=rows, tolerance=TOLERANCE)


def _code_of(subject: Subject) -> CodeFacts:
    """How the run was started; ``relume train`` needs no code, so that its command is enough."""
    if documents.CODE in subject.bundle:
        return subject.document(documents.CODE, CodeFacts)
    command = subject.run().command
    is_own = command[:1] == ["relume"]
    return CodeFacts(is_relume_command=is_own, arguments=command[1:] if is_own else [])


@contextmanager
def workspace() -> Iterator[Path]:
    """A private temporary folder, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="relume-reproduce-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def retrained(
    bundle: Bundle,
    code: CodeFacts,
    command: Command,
    run: RunFacts,
    author: Environment,
    folder: Path,
    fresh: Fresh | None,
    timeout_seconds: float | None,
    data: Path | None,
) -> Retrained:
    """Start the command below ``folder`` and end it when it has made the checkpoint.

    Raises:
        BundleError: it failed, or took too long; with the last lines that it printed.
    """
    root, place = folder / "runs", folder / "work"
    place.mkdir()
    arguments = list(command.arguments)
    if command.needs_code:
        unpack_code(bundle, code, place)
        script = checked_script(code, place)
        arguments, place = [str(script), *arguments[1:]], (place / (command.directory or ".")).resolve()
    interpreter = str(fresh.python) if fresh is not None else sys.executable
    environment = variables(root, author, data, fresh is not None)
    log = folder / "training.txt"
    began = time.monotonic()
    with log.open("wb") as file, child([interpreter, *arguments], environment, file.fileno(), place) as process:
        watched = _Watched(root, run)
        while (status := process.poll()) is None and not watched.is_done():
            if timeout_seconds is not None and time.monotonic() - began > timeout_seconds:
                raise BundleError(
                    f"it was ended after {timeout_seconds:g} s without the checkpoint (--timeout): {_tail(log)}"
                )
            time.sleep(_POLL_SECONDS)
    checkpoint = watched.found()
    if checkpoint is None:
        if status:
            raise BundleError(
                f"it ended with exit status {status}, without the checkpoint. Its last lines: {_tail(log)}"
            )
        raise _OtherPathError(f"the training ended without a checkpoint at {_place(run)}: it made {watched.made()}")
    return _read(Store(root), checkpoint, bundle, time.monotonic() - began)


class _Watched:
    """The root of the new runs, looked at for the one checkpoint."""

    def __init__(self, root: Path, run: RunFacts) -> None:
        self._store, self._root, self._run = Store(root), root, run

    def _all(self) -> list[Checkpoint]:
        if not self._root.is_dir():
            return []
        try:
            folders = list(self._store.folders())
            own = [name for name in folders if name.split("/")[0] == self._run.name] or folders
            return [one for name in own for one in self._store.list(name)]
        except (OSError, RelumeError):  # being made
            return []

    def found(self) -> Checkpoint | None:
        """The checkpoint at the bundle's step; of several the one that the bundle names, else the last."""
        known = self._all()
        named = [one for one in known if one.name == self._run.checkpoint]
        if self._run.step is None:
            return next(reversed(named or known), None)
        return next(reversed(named or [one for one in known if _at(one) == (self._run.epoch, self._run.step)]), None)

    def is_done(self) -> bool:
        """Whether it is there and no better one can come: it has its very name, or a later one followed."""
        known = self._all()
        if any(one.name == self._run.checkpoint for one in known):
            return True
        later = [one for one in known if self._run.step is not None and _at(one)[1] > self._run.step]
        return bool(later) and self.found() is not None

    def made(self) -> str:
        known = self._all()
        return ", ".join(one.name for one in known[-3:]) or "no checkpoint"


def _at(checkpoint: Checkpoint) -> tuple[int, int]:
    match = _LABEL.match(checkpoint.label)
    return (int(match[1]), int(match[2])) if match else (-1, -1)


def _place(run: RunFacts) -> str:
    return f"epoch {run.epoch}, step {run.step}"


def unpack_code(bundle: Bundle, code: CodeFacts, folder: Path) -> None:
    """Write the code of a bundle, whose paths are known to stay below it."""
    executable = {entry.path for entry in code.files if entry.is_executable}
    for member in bundle.members(documents.CODE_FOLDER):
        name = member.removeprefix(documents.CODE_FOLDER)
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bundle.read(member))
        if name in executable:
            place.chmod(0o700)


def variables(root: Path, author: Environment, data: Path | None, is_fresh: bool) -> dict[str, str]:
    """The environment of the new training: this one, with the author's number of threads and nothing that leads elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_DROPPED)}
    if is_fresh:
        kept = {key: value for key, value in kept.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    elif "PYTHONPATH" in kept:  # the training runs in another folder
        parts = [str(Path(part).absolute()) for part in kept["PYTHONPATH"].split(os.pathsep) if part]
        kept["PYTHONPATH"] = os.pathsep.join(parts)
    if (data_root := os.environ.get("RELUME_DATA")) is not None:
        kept["RELUME_DATA"] = str(Path(data_root).absolute())
    if data is not None:
        kept["RELUME_DATA"] = str(data.absolute())
    if author.threads is not None and 0 < author.threads <= 256:
        kept["OMP_NUM_THREADS"] = str(author.threads)
    return kept | {
        "RELUME_ROOT": str(root),
        "RELUME_PROVENANCE": "off",
        "RELUME_REHEARSAL": "1",  # no trackers
        "WANDB_MODE": "disabled",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _read(store: Store, checkpoint: Checkpoint, bundle: Bundle, seconds: float) -> Retrained:
    wanted = set(bundle.tensors(documents.WEIGHTS).state)
    tree: Any = store.manifest(checkpoint).tree
    names = list(tree.get("models") or ()) if isinstance(tree, Mapping) else []
    states = [
        {name: value.detach().clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
        for state in (checkpoint_state(store, checkpoint, model=name) for name in names)
    ]
    if not states:
        raise BundleError(f"the checkpoint {checkpoint.name} of the new training has no model")
    meta = store.meta(checkpoint)
    metrics = meta.get("metrics") if isinstance(meta, Mapping) else None
    numbers = {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, (int, float))}
    return Retrained(next((state for state in states if set(state) == wanted), states[0]), numbers, seconds)


# --------------------------------------------------------------------------------------------------------- comparing


def _compared(subject: Subject, found: Retrained, elsewhere: str) -> list[Row]:
    claimed = subject.bundle.tensors(documents.WEIGHTS).state
    rows = [_weights_row(claimed, found.state, elsewhere)]
    claims = subject.claims() if documents.CLAIMS in subject.bundle else Claims()
    model = _model_with(subject, found.state)
    for claim, label in zip(claims.claims, names_of(claims, subject.samples()), strict=True):
        if not 0 <= claim.evaluation < len(claims.evaluations):
            continue
        evaluation = claims.evaluations[claim.evaluation]
        name = label
        value = (
            found.metrics.get(claim.name)
            if evaluation.where == "training"
            else _measured(subject, model, claim.evaluation, claim.name)
        )
        if value is None:
            rows.append(unchecked(name, "the new training did not measure it", claimed=repr(claim.value)))
            continue
        computed_by = evaluation.metrics.get(claim.name, "") or claim.name
        allowed = metric_tolerance(computed_by, claim.value, claim.tolerance)
        if elsewhere:
            is_share = metric_tolerance(computed_by, claim.value, 0.0) == 0.0
            allowed = max(allowed, ACCURACY_ELSEWHERE if is_share else LOSS_ELSEWHERE * abs(claim.value))
        rows.append(compare_value(name, claim.value, value, allowed))
    return rows


def _weights_row(claimed: Mapping[str, Any], found: Mapping[str, torch.Tensor], elsewhere: str) -> Row:
    theirs, ours = weights_digest(claimed), weights_digest(found)
    claim = "weights"
    if theirs == ours:
        return Row(claim=claim, claimed=theirs, found=ours, verdict=Verdict.EXACT)
    apart = _apart(claimed, found)
    if elsewhere:
        return unchecked(claim, f"{elsewhere}, which gives other last digits. {apart}", claimed=theirs, found=ours)
    why = f"the same processor and versions gave other weights. {apart}"
    return Row(claim=claim, claimed=theirs, found=ours, verdict=Verdict.DIFFERENT, why=why)


def _apart(claimed: Mapping[str, Any], found: Mapping[str, torch.Tensor]) -> str:
    common = [
        name for name in claimed if name in found and claimed[name].shape == found[name].shape and claimed[name].numel()
    ]
    if len(common) != len(claimed) or len(claimed) != len(found):
        return f"Only {len(common)} of {len(claimed)} tensors have the same name and shape."
    if not common:
        return "There are no tensors."
    largest, name = max((difference(claimed[name], found[name]).largest, name) for name in common)
    return f"Largest difference {largest:.3g}, in {name}."


def _model_with(subject: Subject, state: Mapping[str, torch.Tensor]) -> Any:
    """A copy of the opened model with the new weights; None where its graph cannot take them."""
    model = next((subject.models[way] for way in ("recipe", "code") if way in subject.models), None)
    try:
        if model is not None:
            model = copy.deepcopy(model)
            model.load_state_dict(dict(state), strict=False)
        return model
    except Exception:
        return None


def _measured(subject: Subject, model: Any, number: int, name: str) -> float | None:
    evaluation = subject.claims().evaluations[number]
    if model is None or evaluation.data is None or evaluation.data not in subject.datasets:
        return None
    key = -1 - number  # the retrained model's, beside those of the bundle's
    if key not in subject.measured:
        subject.measured[key] = measured(subject, model, evaluation)
    value = subject.measured[key].values.get(name)
    return None if value is None else float(value)


def _in_fresh(made: Fresh, row: Row) -> Row:
    """Where it was trained is said with the weights: packages that could be installed prove nothing by themselves."""
    left = f", without {', '.join(made.left_out[:6])}, which no index has" if made.left_out else ""
    text = f"in a fresh environment with {made.installed} packages of the exact versions{left}"
    return row.model_copy(update={"why": f"{row.why}; {text}" if row.why else text})


def _tail(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " / ".join(lines[-_TAIL_LINES:])[-300:] or "it printed nothing"
