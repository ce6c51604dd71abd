"""The process's generators: saved, exchanged and put back exactly."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from relume import generators
from relume.generators import FetchScope, RandomScope, fingerprint, isolated
from relume.seeds import seed_everything


def draw() -> tuple:
    return random.random(), random.gauss(0, 1), random.getrandbits(70), np.random.rand(), torch.rand(3).tolist()


@pytest.mark.parametrize("is_direct", [True, False])
def test_a_block_on_other_generators_leaves_no_trace(is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators._python, "is_direct", is_direct)
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
    assert generators._python.is_direct and generators._numpy.watched() is not None


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


def test_the_seed_of_torch_is_still_the_users_after_a_block() -> None:
    torch.manual_seed(11)
    with isolated(5):
        torch.rand(1)
    assert torch.initial_seed() == 11


@pytest.mark.parametrize("is_direct", [True, False])
def test_numpys_waiting_normal_number_is_kept(is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_direct:
        monkeypatch.setattr(generators._numpy, "_gauss_offset", None)
    np.random.seed(4)
    expected = np.random.randn(4)
    np.random.seed(4)
    found = [np.random.randn()]
    with isolated(1):
        np.random.randn()
    found += [np.random.randn() for _ in range(3)]
    assert found == expected.tolist()


DRAWS = {
    "random": lambda: random.random(),
    "random.gauss": lambda: random.gauss(0, 1),
    "numpy": lambda: np.random.rand(),
    "numpy.randn": lambda: np.random.randn(),
    "numpy.shuffle": lambda: np.random.permutation(5).tolist(),
    "torch": lambda: torch.rand(2).tolist(),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("first", [0, 3, 4, 7])
def test_a_batch_that_draws_only_later_is_fetched_under_its_seed(name: str, first: int) -> None:
    """Watched or seeded, whatever was fetched before: a batch depends on its seed alone, and nothing leaks out."""

    def fetch(number: int) -> object:
        return DRAWS[name]() if number >= first else number

    seed_everything(9)
    random.gauss(0, 1), np.random.randn()  # both leave a number waiting
    scope, found = FetchScope(), []
    for number in range(12):
        before = fingerprint()
        found.append(scope.fetch(1000 + number, fetch, number))
        assert fingerprint() == before
        draw()  # the training's own draws, between batches
    alone = [FetchScope().fetch(1000 + number, fetch, number) for number in range(12)]
    assert found == alone
    assert len({str(value) for value in found}) == 12


def test_quiet_batches_are_fetched_once_and_are_not_seeded() -> None:
    calls: list[int] = []
    scope = FetchScope()
    for number in range(20):
        scope.fetch(number, calls.append, number)
    assert calls == list(range(20)) and scope._saved is not None


def test_a_generator_of_another_kind_is_left_to_numpy() -> None:
    ours = generators._numpy_random.get_bit_generator()
    try:
        generators._numpy_random.set_bit_generator(np.random.PCG64(3))
        before, scope = fingerprint(), FetchScope()
        found = [scope.fetch(5, lambda _: np.random.rand(), 0) for _ in range(8)]
        assert len(set(found)) == 1 and fingerprint() == before
    finally:
        generators._numpy_random.set_bit_generator(ours)


def test_no_import_behind_the_opening_of_a_run_draws_a_number() -> None:
    """Some libraries draw when they are imported: a resumed training imports them at other moments than an undisturbed one."""
    script = """
import importlib, pkgutil, random
import relume
relume.Run
before = random.getstate()
for module in pkgutil.walk_packages(relume.__path__, "relume."):
    if "__main__" not in module.name and "worker" not in module.name:
        importlib.import_module(module.name)
import rich.live, rich.progress, rich.table, rich.markup, matplotlib.figure, PIL.Image
assert random.getstate() == before
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_threads_take_turns_and_nothing_they_share_is_freed() -> None:
    """numpy crashes when a generator is freed that another thread looks at; two trainings in one notebook did that."""
    wrong: list[str] = []

    def draws(seed: int) -> None:
        expected = None
        for _ in range(300):
            with isolated(seed):  # a scope of its own each time
                generators.fingerprint()
                drawn = (random.random(), np.random.rand(), torch.rand(1).item())
            expected = expected or drawn
            if drawn != expected:
                wrong.append(f"{seed}: {drawn} instead of {expected}")

    before, spare = generators.fingerprint(), len(generators._spare)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=draws, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == [] and generators.fingerprint() == before
    assert len(generators._spare) <= spare + 8


def test_a_forked_process_need_not_wait_for_a_thread_that_it_does_not_have() -> None:
    with isolated(0):
        child = os.fork()
        if child == 0:
            inside = threading.Thread(target=lambda: generators.fingerprint())
            inside.daemon = True
            inside.start()
            inside.join(20)
            os._exit(int(inside.is_alive()))
        assert os.waitpid(child, 0)[1] == 0
