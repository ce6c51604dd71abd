"""The generators of the process go on where they were."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from relume.checkpoint import Store
from relume.run.state import (
    load_random_state,
    random_state,
)

from .common import same, stored


def draw() -> list[Any]:
    return [torch.randn(3).tolist(), np.random.randn(), np.random.rand(), random.gauss(0, 1), random.random()]


@pytest.fixture
def _own_generators() -> Iterator[None]:
    before = np.random.get_bit_generator(), random.getstate()
    yield
    np.random.set_bit_generator(before[0])
    random.setstate(before[1])


@pytest.mark.usefixtures("_own_generators")
@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
@pytest.mark.parametrize("waiting", [0, 1])
def test_every_generator_goes_on(kind: str, waiting: int, tmp_path: pathlib.Path) -> None:
    np.random.set_bit_generator(getattr(np.random, kind)(7))
    random.seed(5)
    for _ in range(waiting):
        np.random.randn(), random.gauss(0, 1)
    store = Store(tmp_path)
    state = store.load(store.save(random_state()))
    expected = [draw() for _ in range(3)]
    np.random.set_bit_generator(np.random.MT19937(1))
    np.random.randn(), random.gauss(0, 1), torch.randn(5)
    assert load_random_state(state) == []
    assert type(np.random.get_bit_generator()).__name__ == kind
    assert [draw() for _ in range(3)] == expected


@pytest.mark.usefixtures("_own_generators")
def test_devices_and_generators_that_are_not_there_are_notes() -> None:
    state = random_state()
    numpy_state = state["numpy"] | {"bit_generator": "MyOwn"}
    missing = [torch.zeros(16, dtype=torch.uint8)] * (torch.cuda.device_count() + 1)
    notes = load_random_state(
        state | {"cuda": missing, "numpy": numpy_state} if not torch.cuda.is_available() else state
    )
    if not torch.cuda.is_available():
        assert notes == [
            "random numbers: the checkpoint has numpy's global generator on MyOwn, which is not numpy's own",
            "random numbers: the checkpoint has 1 CUDA device, this machine 0: they are left out, and what is drawn there "
            "is not what it would have been",
        ]


@pytest.mark.cuda
def test_cuda_generators_go_on() -> None:
    torch.randn(3, device="cuda")
    state = stored(random_state())
    expected = torch.randn(5, device="cuda")
    torch.randn(7, device="cuda")
    assert load_random_state(state) == []
    assert same(torch.randn(5, device="cuda"), expected)
