"""``relume.reproduce``: all stages in their order."""

from __future__ import annotations

import datetime
import os
import time as clock
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from relume.errors import BundleError, ConfigurationError, RelumeError
from relume.share.bundle import Bundle
from relume.share.documents import Environment
from relume.share.reproduce.causes import causes
from relume.share.reproduce.subject import Subject, reason, unchecked
from relume.share.reproduce.verdicts import STAGES, Reproduction, Row, Stage, Verdict, exit_status, first_difference

Progress = Callable[[Stage, float], None]
"""Is told of each stage when it is done, and how many seconds it took."""


def reproduce(
    path: str | os.PathLike[str],
    data: Any = None,
    *,
    retrain: bool = False,
    trust: bool = False,
    fresh_environment: bool = False,
    timeout_seconds: float | None = None,
    time: str | None = None,
    progress: Progress | None = None,
) -> Reproduction:
    """Check what a bundle claims: digests, environment, weights, preprocessing, outputs, data, metrics; train it again.

    Nothing in the bundle is executed unless it is trusted; nothing outside temporary folders is written.

    Args:
        path: the ``.relume`` file, or the folder that it was unpacked to.
        data: where the data are: the folder or file of them, or a dataset of (input, target). By default a named data set
            is looked for where `relume.datasets` looks, and a sample in the bundle is used.
        retrain: train again from the bundle's code and seed, in a temporary folder, and compare weights and metrics.
        trust: let code of the bundle run: its model class, its metrics, its training script. Read it first.
        fresh_environment: train in a new virtual environment with the exact versions of ``environment.json``, which pip
            gets. Needs ``retrain`` and ``trust``: packages that the bundle names run code.
        timeout_seconds: how long the training may take.
        time: what the report says of when it was made; by default now, in UTC.
        progress: is told of each stage when it is done, with its seconds.

    Returns:
        The claims with a verdict each. ``exit_status`` is 0 where nothing differs and outputs, metrics or the training
        were checked, 1 where something differs, 3 where none could be checked.

    Raises:
        BundleError: there is no such file. A damaged one is no error: its digests differ.
        ConfigurationError: ``fresh_environment`` without ``retrain`` and ``trust``; a timeout that is no number above 0.
    """
    path = Path(path).expanduser()
    _check(path, retrain, trust, fresh_environment, timeout_seconds)
    told = progress or (lambda stage, seconds: None)
    options = {"data": data is not None, "retrain": retrain, "trust": trust, "fresh_environment": fresh_environment}
    when = time if time is not None else datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    began = clock.perf_counter()
    bundle, first = _digests(path)
    told(first, clock.perf_counter() - began)
    stages, author = [first], None
    from relume.share.reproduce.environment import environment_here

    here = environment_here()
    if bundle is not None and first.verdict is Verdict.EXACT:
        subject = Subject(bundle, trust, data, here)
        author = _rest(subject, stages, told, retrain, fresh_environment, timeout_seconds)
    else:
        stages += [
            Stage(name=name, rows=[unchecked(name, "the bundle is damaged: nothing of it was used")])
            for name in STAGES[1:]
            if name != "training" or retrain
        ]
    return _report(bundle, stages, author, here, options, when)


def _check(path: Path, retrain: bool, trust: bool, fresh: bool, timeout_seconds: float | None) -> None:
    if not path.exists():
        raise BundleError(f"there is no bundle {path}. relume pack RUN makes one, relume pull gets one.")
    if path.is_dir() and not any(path.iterdir()):
        raise BundleError(f"{path} is an empty folder, and no bundle.")
    if fresh and not retrain:
        raise ConfigurationError("a fresh environment is for training again: --fresh-environment goes with --retrain.")
    if fresh and not trust:
        raise ConfigurationError(
            "--fresh-environment installs the packages that the bundle names, and packages run code. Read environment.json "
            "(relume unpack), and if you trust it give --trust too."
        )
    if timeout_seconds is not None and not 0 < timeout_seconds < float("inf"):
        raise ConfigurationError(f"timeout_seconds={timeout_seconds!r}: it is a number of seconds above 0.")


def _digests(path: Path) -> tuple[Bundle | None, Stage]:
    from relume.share.reproduce.stages import digests

    try:
        bundle = Bundle(path)
        return bundle, digests(bundle)
    except (RelumeError, OSError) as error:
        row = Row(claim="every byte", verdict=Verdict.DIFFERENT, why=reason(error))
        return None, Stage(name="digests", rows=[row])


def _rest(
    subject: Subject,
    stages: list[Stage],
    told: Progress,
    retrain: bool,
    fresh: bool,
    timeout_seconds: float | None,
) -> Environment | None:
    """All stages behind the digests; the author's environment."""
    from relume.share.reproduce import metrics
    from relume.share.reproduce import stages as early

    began = clock.perf_counter()
    stage, author = early.environment(subject)
    stages.append(stage)
    told(stage, clock.perf_counter() - began)
    steps: list[tuple[str, Callable[[Subject], Stage]]] = [
        ("weights", early.weights),
        ("preprocessing", early.preprocessing),
        ("outputs", early.outputs),
        ("data", metrics.data),
        ("metrics", metrics.metrics),
    ]
    if retrain:
        from relume.share.reproduce.retrain import training

        steps.append(("training", lambda subject: training(subject, author, fresh, timeout_seconds)))
    for name, step in steps:
        began = clock.perf_counter()
        stages.append(_safely(name, step, subject))
        told(stages[-1], clock.perf_counter() - began)
    return author


def _safely(name: str, step: Callable[[Subject], Stage], subject: Subject) -> Stage:
    """A bundle can hold anything: what goes wrong with one stage is said, and the next ones are done."""
    try:
        return step(subject)
    except Exception as error:
        return Stage(name=name, rows=[unchecked(name, error)])


def _portable(stage: Stage, bundle: Bundle | None) -> Stage:
    """A stage without the folders of this machine: the report is sent to others."""
    folders = (
        [str(bundle.path.parent) + os.sep, str(bundle.path.absolute().parent) + os.sep] if bundle is not None else []
    )
    home = str(Path.home())

    def clean(text: str) -> str:
        for folder in folders:
            text = text.replace(folder, "") if len(folder) > 2 else text
        return text.replace(home + os.sep, f"~{os.sep}") if len(home) > 1 else text

    rows = [row.model_copy(update={"why": clean(row.why), "found": clean(row.found)}) for row in stage.rows]
    return stage.model_copy(update={"rows": rows})


def _report(
    bundle: Bundle | None,
    stages: Iterable[Stage],
    author: Environment | None,
    here: Environment,
    options: dict[str, bool],
    when: str,
) -> Reproduction:
    from relume.version import __version__

    done = [_portable(stage, bundle) for stage in stages]
    first = first_difference(done)
    reasons, advice = causes(done, first)
    return Reproduction(
        bundle=bundle.name if bundle is not None else "",
        digest=bundle.manifest.digest if bundle is not None else "",
        packed_by=bundle.manifest.relume if bundle is not None else "",
        relume=__version__,
        time=when,
        options=options,
        author=author,
        here=here,
        stages=done,
        first_difference=first,
        reasons=reasons,
        advice=advice,
        exit_status=exit_status(done),
    )
