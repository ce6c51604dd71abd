"""Why two runs differ: told by running the script again, and by what its source says."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from relume.checkpoint import Store
from relume.monitor import RunRecord, runs_in
from relume.rehearse import scan
from relume.rehearse.compare import FirstState, RunComparison, compare_roots, first_different_checkpoint
from relume.rehearse.logged import LoggedDifference
from relume.rehearse.runner import Execution
from relume.rehearse.scan import Hint

Again = Callable[[str, Mapping[str, str]], Execution]
"""Runs the script once more, undisturbed: what for, and what to change in its environment."""

_SEEDED = str(Path(__file__).parent / "seeded")
_HINTS_SHOWN = 6


@dataclass(frozen=True)
class Diagnosis:
    """The likely cause of a difference.

    Attributes:
        kind: ``"nondeterminism"``: two undisturbed runs differ already; ``"state"``: something gets lost in a kill.
        cause: in a sentence.
        evidence: what was observed.
        places: in the source, the likeliest first.
        remedy: what to do.
    """

    kind: Literal["nondeterminism", "state", "script"]
    cause: str
    evidence: list[str]
    remedy: str
    places: list[Hint] = field(default_factory=list)


def diagnose(
    files: Sequence[Path], undisturbed: Execution, killed: Execution, differing: Sequence[RunComparison], again: Again
) -> Diagnosis:
    """Find out why runs differ; starts the script again through ``again``."""
    if any(_is_before_kills(comparison) for comparison in differing):
        evidence = "the numbers differ before the first kill already, so it is not the kills"
        return _nondeterminism(files, undisturbed, killed, differing, again, evidence)
    second = again("again, undisturbed", {})
    if second.has_failed:
        return Diagnosis(
            "script",
            "the script fails when it is simply run a second time",
            [f"it ended with status {second.starts[-1].status}:\n{second.starts[-1].tail}"],
            "Make it run twice in the same directory: files and folders that it made the first time are there already.",
        )
    unlike = [c for c in compare_roots(undisturbed.root, second.root) if not c.is_same]
    if unlike:
        evidence = "two undisturbed runs differ too, so it is not the kills"
        return _nondeterminism(files, undisturbed, second, unlike, again, evidence)
    if nameless := [c for c in differing if c.problem]:
        return _new_runs(nameless)
    return _lost_state(files, differing, second, killed)


def _is_before_kills(comparison: RunComparison) -> bool:
    """Whether the first difference is in what the first start wrote, which no kill had touched."""
    first = comparison.journal.first
    return first is not None and first.line is not None and first.line.segment.number == 1


# ------------------------------------------------------------------------------------------------------ nondeterminism


def _nondeterminism(
    files: Sequence[Path],
    one: Execution,
    other: Execution,
    unlike: Sequence[RunComparison],
    again: Again,
    reason: str,
) -> Diagnosis:
    evidence = [reason, *_first(unlike[0])]
    hints = scan.nondeterministic(files)
    if unlike[0].problem:
        return Diagnosis(
            "nondeterminism",
            "the name of the run is another one at each start, so that no start finds the run of the one before",
            [f"runs of the first execution: {_names(one)}; of the second: {_names(other)}"],
            "Give the run a fixed name. relume numbers runs and notes times by itself.",
            _of(hints, "time", "entropy"),
        )
    if seeds := _different_seeds(one, other):
        return Diagnosis(
            "nondeterminism",
            "no seed is set, and the script seeds torch anew at each start",
            [*evidence, seeds],
            "Give seed=0 to Run or Trainer, or call relume.seed_everything(0) first.",
            _of(hints, "entropy", "unseeded", "time"),
        )
    for experiment in _experiments(hints, one):
        first, second = (again(f"{experiment.name}, {number} of 2", experiment.environment) for number in (1, 2))
        is_equal = not (first.has_failed or second.has_failed) and all(
            c.is_same for c in compare_roots(first.root, second.root)
        )
        evidence.append(f"two runs {experiment.name}: {'the same' if is_equal else 'differ as well'}")
        if is_equal:
            places = _of(hints, *experiment.kinds)
            return Diagnosis("nondeterminism", experiment.cause, evidence, experiment.remedy, places)
    return _by_source(hints, evidence)


def _by_source(hints: Sequence[Hint], evidence: list[str]) -> Diagnosis:
    for kinds, cause, remedy in (
        (
            ("unseeded", "entropy"),
            "a random generator that is given no seed, or numbers of the operating system",
            "Give each generator a seed, such as np.random.default_rng(0), and pass it in track= when it is used while training.",
        ),
        (
            ("time",),
            "the time of day is part of the computation",
            "Do not compute with times. A metric that is one is left out of the comparison when its name says so: "
            "step_time, seconds, samples_per_second.",
        ),
    ):
        if places := _of(hints, *kinds):
            return Diagnosis("nondeterminism", cause, evidence, remedy, places)
    return Diagnosis(
        "nondeterminism",
        "the script computes other numbers at each start, and its source does not show why",
        evidence,
        "Look for threads that race, data that changes, and operations that PyTorch lists as nondeterministic "
        "(deterministic=True of Run and Trainer names them); relume doctor looks at the rest.",
    )


@dataclass(frozen=True)
class _Experiment:
    """Two runs under a changed environment: when these are equal, the cause is found."""

    name: str
    environment: Mapping[str, str]
    kinds: tuple[scan.Kind, ...]
    cause: str
    remedy: str


def _experiments(hints: Sequence[Hint], execution: Execution) -> list[_Experiment]:
    """Those that can tell something here, the likeliest first."""
    path = os.pathsep.join(filter(None, (_SEEDED, os.environ.get("PYTHONPATH"))))
    found = []
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        found.append(
            _Experiment(
                "with PYTHONHASHSEED=0",
                {"PYTHONHASHSEED": "0"},
                ("set",),
                "the order of a set of strings (or of what else has a hash that Python changes at each start)",
                "Sort it before it is iterated over: for name in sorted(names). Setting PYTHONHASHSEED=0 only hides it.",
            )
        )
    generators = _Experiment(
        "with numpy's and random's global generators seeded",
        {"PYTHONPATH": path},
        ("global", "unseeded"),
        "numpy's or random's global generator is used without a seed",
        "Give seed=0 to Run or Trainer, or call relume.seed_everything(0) first: it seeds torch, numpy and random.",
    )
    found.insert(0 if _of(hints, "global") else len(found), generators)
    if not _of(hints, "unseeded", "entropy"):
        device, threads = _machine(execution)
        if device.startswith("cuda"):
            found.append(
                _Experiment(
                    "with deterministic kernels",
                    {"PYTHONPATH": path, "RELUME_REHEARSAL_KERNELS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
                    (),
                    "kernels of the GPU that add in another order each time",
                    "Give deterministic=True to Run or Trainer, or accept it: "
                    "a resumed run is then as far from the undisturbed one as another undisturbed one is.",
                )
            )
        elif threads > 1:
            found.append(
                _Experiment(
                    "with one thread",
                    {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                    (),
                    "several threads add in another order each time",
                    "Call torch.set_num_threads(1), or accept it: a resumed run is then as far from the undisturbed one "
                    "as another undisturbed one is.",
                )
            )
    return found


def _different_seeds(one: Execution, other: Execution) -> str | None:
    for folder in runs_in(one.root):
        seeds = [RunRecord.load(root / folder.name).seed for root in (one.root, other.root)]
        if seeds[0] != seeds[1]:
            return f"the seed of run {folder.name} was {seeds[0]} and then {seeds[1]}"
    return None


def _machine(execution: Execution) -> tuple[str, int]:
    """The device and the number of threads of a run."""
    store = Store(execution.root)
    for folder in store.folders():
        for checkpoint in store.list(folder)[-1:]:
            meta = store.meta(checkpoint) or {}
            return str(meta.get("device", "")), int(meta.get("threads") or 1)
    return "", 1


def _names(execution: Execution) -> str:
    return ", ".join(folder.name for folder in runs_in(execution.root)) or "none"


# ---------------------------------------------------------------------------------------------------------- lost state


def _new_runs(nameless: Sequence[RunComparison]) -> Diagnosis:
    return Diagnosis(
        "state",
        "a start after a kill begins a new run instead of carrying on the one before: resume=False, or a run that is given "
        "no model, optimizer or track, and so has nothing to restore",
        [f"run {comparison.name}: {comparison.problem}" for comparison in nameless],
        "Leave resume= at its default, and let the run's name be the same at each start.",
    )


_CAUSES: dict[scan.Kind, tuple[str, str]] = {
    "generator": (
        "a random generator of the script's own begins from its seed again after each start",
        'Pass it to the Run or to fit: track={{"{name}": {name}}}.',
    ),
    "average": (
        "averaged weights begin anew after each start",
        'Pass them to the Run or to fit: track={{"{name}": {name}}}.',
    ),
    "accumulator": (
        "a number or a container that grows while training begins anew after each start",
        "Keep it in an object with state_dict() and load_state_dict(), and pass that in track=; or log the single values.",
    ),
    "iterator": (
        "an iterator of the script's own begins anew after each start",
        "Iterate with run.batches(loader), or pass an object with state_dict() and load_state_dict() in track=.",
    ),
    "object": (
        "an object of the script's own that changes while training begins anew after each start",
        "Give its class state_dict() and load_state_dict(), and pass it to the Run or to fit: "
        'track={{"{name}": {name}}}.',
    ),
    "file": (
        "a file that the script appends to has lines of a dead branch after a kill, and the training reads them",
        "Write files whole, with the step in their name; or log through run.log, which knows what counts.",
    ),
}


def _lost_state(
    files: Sequence[Path], differing: Sequence[RunComparison], second: Execution, killed: Execution
) -> Diagnosis:
    comparison = differing[0]
    first = first_different_checkpoint(comparison.name, second.root, killed.root)
    logged = comparison.journal.first
    evidence = ["two undisturbed runs are the same to the last bit, so it is the kills", *_first(comparison)]
    evidence += _order(logged, first)
    places = _ranked(scan.untracked(files), files, logged, first)
    if not places:
        return Diagnosis(
            "state",
            "something that changes while training is neither in the checkpoint nor passed in track=",
            evidence,
            "Look for objects that live longer than one batch: generators, averages, counters, buffers, files.",
        )
    cause, remedy = _CAUSES[places[0].kind]
    same = [place for place in places if place.kind == places[0].kind]
    others = [place for place in places if place.kind != places[0].kind]
    return Diagnosis("state", cause, evidence, remedy.format(name=places[0].name), same + others)


def _ranked(
    hints: Sequence[Hint], files: Sequence[Path], logged: LoggedDifference | None, first: FirstState | None
) -> list[Hint]:
    """The likeliest first. Where only metrics differ, it is what was logged under that name; no weight follows from it."""
    if _weights(first):
        order = ("generator", "average", "object", "iterator", "accumulator", "file")
        return sorted(hints, key=lambda hint: order.index(hint.kind))
    order = ("accumulator", "object", "average", "iterator", "generator", "file")
    names = scan.logged_names(files, logged.metric) if logged is not None and logged.metric is not None else set()
    return sorted(hints, key=lambda hint: (hint.name not in names, order.index(hint.kind)))


def _weights(first: FirstState | None) -> list[str]:
    """What differs of a state, but for the metrics that it holds."""
    return [d.place for d in first.differences if d.path[0] not in ("run", "stopping")] if first is not None else []


def _first(comparison: RunComparison) -> list[str]:
    """Where a comparison differs first, in words."""
    found = []
    logged = comparison.journal.first
    if comparison.problem:
        found.append(f"run {comparison.name}: {comparison.problem}")
    if logged is not None:
        metric = f"{logged.metric}: " if logged.metric else ""
        found.append(f"first logged difference at {place_of(logged)}: {metric}{logged.text}")
    return found


def _order(logged: LoggedDifference | None, first: FirstState | None) -> list[str]:
    """Which came first, the logged value or the weights."""
    if first is None:
        return ["weights, optimizers and all other state are the same: only metrics differ"] if logged else []
    since = "the start" if first.same_step is None else f"step {first.same_step}"
    what = _weights(first)
    if not what:
        return ["weights, optimizers and all other state are the same: only metrics differ"]
    found = [
        f"the first checkpoint that differs is of step {first.step} (still the same: {since}): {what[0]}"
        + (f" and {len(what) - 1} more" if len(what) > 1 else "")
    ]
    if logged is not None:
        if first.same_step is not None and logged.step <= first.same_step:
            found.append("the logged value differed while the state was still the same")
        elif logged.step < first.step:
            found.append(
                f"the logged value differed first, and the state in the {first.step - logged.step} steps behind it"
            )
        elif logged.step > first.step:
            found.append("the state differed first, and the logged value after it")
    return found


def place_of(logged: LoggedDifference) -> str:
    """Step, epoch and batch of a logged difference, and how it lies to the last resume."""
    place = f"step {logged.step} (epoch {logged.epoch}, update {logged.batch} of it)"
    if logged.resumed_step is None:
        return place
    return f"{place}, {max(logged.step - logged.resumed_step, 0)} behind the resume at step {logged.resumed_step}"


def _of(hints: Sequence[Hint], *kinds: scan.Kind) -> list[Hint]:
    return [hint for kind in kinds for hint in hints if hint.kind == kind][:_HINTS_SHOWN]
