"""The likely cause, told from runs that are written by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from tiny_run import TinyRun

from relume.rehearse.causes import Diagnosis, diagnose
from relume.rehearse.compare import compare_roots, first_different_checkpoint
from relume.rehearse.runner import Execution, Start

Numbers = Callable[[int, int], float]
"""What a script adds to its weight, from the step and the number of the start."""


def execution(
    root: Path,
    numbers: Numbers,
    kills: tuple[int, ...] = (),
    name: str = "line",
    seed: int = 0,
    logged: Numbers | None = None,
) -> Execution:
    """A run of 20 steps with a checkpoint each 5, that ends at each of ``kills`` and carries on."""
    starts = []
    for start, end in enumerate((*kills, 20)):
        run = TinyRun(name, root=root, seed=seed)
        run.state.setdefault("models", {"model": {"weight": torch.zeros(2)}})
        for step in run.steps(20):
            run.state["models"]["model"]["weight"] = run.state["models"]["model"]["weight"] + numbers(step, start)
            value = logged(step, start) if logged is not None else float(run.state["models"]["model"]["weight"][0])
            run.log({"train/loss": value})
            if step == end:
                break
        if end == 20:
            run.save()
        starts.append(Start(0, 1.0, ""))
    return Execution(root, starts)


def diagnosed(
    tmp_path: Path, one: Execution, other: Execution, again: Callable[[Path, Mapping[str, str]], Execution], source: str
) -> Diagnosis:
    script = tmp_path / "script.py"
    script.write_text(source)
    roots = iter(tmp_path / f"again-{number}" for number in range(10))
    differing = [comparison for comparison in compare_roots(one.root, other.root) if not comparison.is_same]
    assert differing
    return diagnose([script], one, other, differing, lambda purpose, environment: again(next(roots), environment))


def steady(step: int, start: int) -> float:
    return 1 / step


def forgetful(step: int, start: int) -> float:
    return 1 / step if start == 0 else 1 / (step + start)


def test_without_kills_in_the_way_a_difference_after_a_resume_is_lost_state(tmp_path: Path) -> None:
    one, other = execution(tmp_path / "one", steady), execution(tmp_path / "other", forgetful, kills=(8,))
    found = diagnosed(
        tmp_path, one, other, lambda root, _: execution(root, steady),
        "import numpy as np\nrng = np.random.default_rng(0)\nfor b in run.batches(x):\n    rng.normal()",
    )  # fmt: skip
    assert found.kind == "state" and "random generator of the script's own" in found.cause
    assert [place.line for place in found.places] == [2] and 'track={"rng": rng}' in found.remedy
    text = "\n".join(found.evidence)
    assert "two undisturbed runs are the same" in text
    assert "step 6 (epoch 1, update 6 of it), 1 behind the resume at step 5: train/loss" in text
    assert "of step 10 (still the same: step 5): models.model.weight" in text
    assert "the logged value differed first, and the state in the 4 steps behind it" in text


def test_where_only_a_metric_differs_its_own_variable_comes_first(tmp_path: Path) -> None:
    one = execution(tmp_path / "one", steady, logged=steady)
    other = execution(tmp_path / "other", steady, kills=(8,), logged=forgetful)
    source = (
        "import numpy as np\nrng = np.random.default_rng(0)\ncount = 0\ntotal = 0\nfor b in run.batches(x):\n"
        "    rng.normal()\n    count += 1\n    total += b\n    run.log({'train/loss': total})"
    )
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, steady, logged=steady), source)
    assert found.kind == "state" and found.places[0].name == "total"
    assert "weights, optimizers and all other state are the same: only metrics differ" in found.evidence


def test_lost_state_that_the_source_does_not_show_is_said_to_be_so(tmp_path: Path) -> None:
    one, other = execution(tmp_path / "one", steady), execution(tmp_path / "other", forgetful, kills=(8,))
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, steady), "")
    assert found.kind == "state" and found.places == [] and "neither in the checkpoint" in found.cause


@pytest.mark.parametrize(
    ("variable", "cause", "place"),
    [
        ("PYTHONHASHSEED", "the order of a set", "{'a', 'b'}"),
        ("PYTHONPATH", "global generator is used without a seed", "rand"),
    ],
)
def test_what_a_changed_environment_cures_is_the_cause(
    tmp_path: Path, variable: str, cause: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    luck = iter(range(100))

    def again(root: Path, environment: Mapping[str, str]) -> Execution:
        return execution(root, steady if variable in environment else lambda step, start: next(luck))

    one = execution(tmp_path / "one", steady)
    other = execution(tmp_path / "other", forgetful, kills=(8,))
    found = diagnosed(tmp_path, one, other, again, "import numpy as np\nx = np.random.rand()\ny = {'a', 'b'}")
    assert found.kind == "nondeterminism" and cause in found.cause and place in found.places[0].code
    assert "two undisturbed runs differ too, so it is not the kills" in found.evidence


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import time\nx = time.time()", "the time of day"),
        (
            "import numpy as np, time\nx = time.time()\nrng = np.random.default_rng()",
            "a random generator that is given no seed",
        ),
        ("", "its source does not show why"),
    ],
)
def test_what_no_environment_cures_is_told_by_the_source(tmp_path: Path, source: str, cause: str) -> None:
    luck = iter(range(1000))
    one = execution(tmp_path / "one", steady)
    other = execution(tmp_path / "other", forgetful, kills=(8,))
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, lambda step, start: next(luck)), source)
    assert found.kind == "nondeterminism" and cause in found.cause
    assert any("with PYTHONHASHSEED=0: differ as well" in text for text in found.evidence)


def test_a_difference_before_the_first_kill_is_not_the_kills(tmp_path: Path) -> None:
    one = execution(tmp_path / "one", steady)
    other = execution(tmp_path / "other", lambda step, start: 2 / step, kills=(8,))
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, steady), "x = {'a', 'b'}")
    assert found.kind == "nondeterminism" and "before the first kill already" in found.evidence[0]


def test_other_seeds_at_each_start_are_seen_in_the_records(tmp_path: Path) -> None:
    one = execution(tmp_path / "one", steady, seed=1)
    other = execution(tmp_path / "other", lambda step, start: 2 / step, seed=2)
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, forgetful, seed=3), "")
    assert "no seed is set" in found.cause and "the seed of run line was 1 and then 2" in found.evidence


def test_other_names_at_each_start_and_new_runs_after_kills_are_told_apart(tmp_path: Path) -> None:
    one, other = execution(tmp_path / "one", steady), execution(tmp_path / "other", steady, name="line-9")
    found = diagnosed(tmp_path, one, other, lambda root, _: execution(root, steady, name="line-7"), "")
    assert "the name of the run is another one at each start" in found.cause
    (tmp_path / "new").mkdir()
    execution(tmp_path / "third", steady)
    other = execution(tmp_path / "third", steady, name="line-2")
    found = diagnosed(tmp_path / "new", one, other, lambda root, _: execution(root, steady), "")
    assert "begins a new run instead" in found.cause


def test_a_script_that_runs_only_once_is_the_cause(tmp_path: Path) -> None:
    one, other = execution(tmp_path / "one", steady), execution(tmp_path / "other", forgetful, kills=(8,))
    failed = Execution(tmp_path, [Start(1, 1.0, "FileExistsError: made.txt")])
    found = diagnosed(tmp_path, one, other, lambda root, _: failed, "")
    assert found.kind == "script" and "FileExistsError: made.txt" in found.evidence[0]


def test_the_first_checkpoint_that_differs_is_found_by_halving(tmp_path: Path) -> None:
    one = execution(tmp_path / "one", steady)
    for first in (1, 6, 12, 20):
        other = execution(tmp_path / f"other-{first}", lambda step, start, first=first: 1 / step + (step == first))
        found = first_different_checkpoint("line", one.root, other.root)
        assert found is not None
        assert (found.step, found.same_step) == (-(-first // 5) * 5, (-(-first // 5) - 1) * 5 or None)
    assert first_different_checkpoint("line", one.root, execution(tmp_path / "same", steady).root) is None
