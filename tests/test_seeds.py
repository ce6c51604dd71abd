"""The process's generators: saved, exchanged and put back exactly."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from relume import seeds
from relume.seeds import RandomScope, derive, fingerprint, isolated, mix, seed_everything


def draw() -> tuple:
    return random.random(), random.gauss(0, 1), random.getrandbits(70), np.random.rand(), torch.rand(3).tolist()


@pytest.mark.parametrize("is_direct", [True, False])
def test_a_block_on_other_generators_leaves_no_trace(is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds._python_random, "_is_direct", is_direct)
    seed_everything(3)
    random.gauss(0, 1)  # leaves a second number waiting
    before = fingerprint()
    expected = None
    for _ in range(3):
        with isolated(5):
            found = draw()
        assert expected is None or found == expected
        expected = found
        assert fingerprint() == before
    random.setstate(before[1])
    after = random.gauss(0, 1)
    seed_everything(3)
    random.gauss(0, 1)
    assert random.gauss(0, 1) == after


def test_the_direct_way_is_used_on_this_python() -> None:
    assert seeds._python_random._is_direct


def test_a_scope_goes_on_where_it_was_left() -> None:
    whole = RandomScope(7)
    whole.enter()
    expected = [draw() for _ in range(4)]
    whole.exit()
    parts, found = RandomScope(7), []
    for _ in range(4):
        random.random(), torch.rand(1)
        parts.enter()
        found.append(draw())
        parts.exit()
    assert found == expected


def test_derived_seeds_differ_and_repeat() -> None:
    made = {derive(s, name, n) for s in range(5) for name in ("a", "b") for n in range(50)}
    assert len(made) == 500 and all(0 <= seed < 2**63 for seed in made)
    assert len({mix(key, n) for key in range(3) for n in range(1000)}) == 3000
    assert mix(1, 2) == mix(1, 2)


def test_the_seed_of_torch_is_still_the_users_after_a_block() -> None:
    torch.manual_seed(11)
    with isolated(5):
        torch.rand(1)
    assert torch.initial_seed() == 11
