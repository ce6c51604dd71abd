"""The ledger reads along and leaves no trace in the training."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import relume
from relume.errors import PreflightError, RelumeWarning
from relume.generators import fingerprint
from relume.transfer import measures
from relume.transfer.findings import Problem
from relume.transfer.ledger import Ledger

DATA = [(torch.randn(8, 4, generator=torch.Generator().manual_seed(n)), torch.arange(8) % 3) for n in range(6)]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


def attach(model: nn.Module, optimizer: torch.optim.Optimizer, **more: Any) -> tuple[Ledger, list[Problem]]:
    said: list[Problem] = []
    return Ledger({"model": model}, {"optimizer": optimizer}, said.append, **more), said


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int = 0) -> None:
    x, y = DATA[number % len(DATA)]
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
    "capturable": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-2), foreach=False),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "rprop": lambda p: torch.optim.Rprop(p),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_changes_no_bit_of_the_training(kind: str) -> None:
    def trained(is_watched: bool) -> tuple[list[torch.Tensor], Any]:
        torch.manual_seed(2)
        model = net()
        relume.freeze(model, "0", "1")
        optimizer = OPTIMIZERS[kind](model.parameters())
        ledger, said = attach(model, optimizer) if is_watched else (None, [])
        for number in range(6):
            step(model, optimizer, number)
            if ledger is not None and number % 3 == 2:
                ledger.epoch_done()
        if ledger is not None:
            ledger.end()
            ledger.close()
        assert said == []
        return [
            *model.state_dict().values(),
            *(p.grad for p in model.parameters() if p.grad is not None),
        ], fingerprint()

    (one, drawn), (other, drawn_too) = trained(True), trained(False)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True)) and drawn == drawn_too


def test_rows_tell_what_the_first_step_did() -> None:
    model = net()
    relume.freeze(model, "0", "1")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger, _ = attach(model, optimizer)
    assert {row.gradient for row in ledger.report().rows} == {""}
    step(model, optimizer)
    rows = {row.name: row for row in ledger.report().rows}
    assert (rows["4.weight"].gradient, rows["4.weight"].moved) == ("finite", True)
    assert (rows["0.weight"].gradient, rows["0.weight"].moved, rows["0.weight"].held) == ("", None, True)
    assert "moved" in str(ledger.report()) and "yes" in str(ledger.report())
    ledger.close()


def test_it_keeps_neither_gradients_nor_parameters_alive() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    models, optimizers = {"model": model}, {"optimizer": optimizer}
    ledger = Ledger(models, optimizers, lambda problem: None)
    functional.cross_entropy(model(DATA[0][0]), DATA[0][1]).backward()
    gradient, parameter = weakref.ref(model[0].weight.grad), weakref.ref(model[0].weight)
    optimizer.step()
    optimizer.zero_grad()
    gc.collect()
    assert gradient() is None
    ledger.close()
    models.clear()
    optimizers.clear()
    del model, optimizer
    gc.collect()
    assert parameter() is None
    assert ledger.report().rows == ()


def test_a_closed_ledger_leaves_no_hooks() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger, _ = attach(model, optimizer)
    step(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.dumps(model), copy.deepcopy(model)  # also while it waits for the next gradient
    ledger.close()
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks
    assert not any(p._backward_hooks for p in model.parameters())


def test_a_ledger_that_is_gone_does_not_hinder() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger, _ = attach(model, optimizer)
    del ledger
    gc.collect()
    step(model, optimizer)


def test_steps_that_a_fused_optimizer_skips_are_not_judged() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1000)
    ledger, said = attach(model, optimizer)
    for x, y in [*DATA, *DATA]:
        scaler.scale(functional.cross_entropy(model(x), y) * 100).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    ledger.end()
    assert said == [] and scaler.get_scale() < 2.0**126
    assert all(row.moved for row in ledger.report().rows if row.name != "0.bias")  # which the batch norm subtracts


def test_a_compiled_model_is_not_compiled_again() -> None:
    counts = []
    for is_watched in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = net()
        compiled = torch.compile(model, backend="aot_eager")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ledger, said = attach(compiled, optimizer) if is_watched else (None, [])
        torch._dynamo.utils.counters.clear()
        for number in range(4):
            step(compiled, optimizer, number)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert said == []
        if ledger is not None:
            assert all(row.gradient == "finite" and row.moved for row in ledger.report().rows if row.name != "0.bias")
    assert counts[0] == counts[1]


def test_phases_are_expected_when_a_schedule_says_so() -> None:
    model = net()
    relume.freeze(model, "0", "1")
    optimizers = {
        "body": torch.optim.SGD(model[:2].parameters(), lr=0.1),
        "head": torch.optim.SGD(model[4].parameters(), 0.1),
    }
    for has_phases in (True, False):
        said: list[Problem] = []
        ledger = Ledger({"model": model}, optimizers, said.append, has_phases=has_phases)
        for number in range(5):
            functional.cross_entropy(model(DATA[number][0]), DATA[number][1]).backward()
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
        ledger.end()
        ledger.close()
        assert [problem.code for problem in said] == ([] if has_phases else ["holds only frozen"])


def test_again_looks_at_a_new_phase_as_at_the_first() -> None:
    model = net()
    relume.freeze(model, "0", "1")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger, said = attach(model, optimizer)
    step(model, optimizer)
    relume.unfreeze(model)
    relume.freeze(model, "4")
    ledger.again("second")
    for number in range(3):
        step(model, optimizer, number)
    moved = {row.name: row.moved for row in ledger.report().rows if row.trainable}
    del moved["0.bias"]  # the batch norm subtracts it: its gradient is rounding errors
    assert moved == dict.fromkeys(["0.weight", "1.weight", "1.bias"], True) and said == []
    ledger.again("second")
    step(model, optimizer)
    assert {row.name: row.moved for row in ledger.report().rows if row.trainable}["1.weight"], "it was looked at before"
    ledger.end()
    assert said == []


def test_a_change_past_the_version_counter_is_found_at_the_end(tmp_path: Path) -> None:
    model = net()
    relume.freeze(model, "0", "1")
    optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
    ledger, said = attach(model, optimizer)
    for number in range(4):
        step(model, optimizer, number)
    model[0].weight.data[3, 2] += 1e-6
    ledger.epoch_done()
    assert said == []
    ledger.end()
    assert [problem.names for problem in said] == [("0.weight",)]
    ledger.end()
    assert len(said) == 1


def test_what_the_run_loads_is_no_change(tmp_path: Path) -> None:
    """A resume, and the best checkpoint at the end, write to frozen parameters."""
    for epochs in (2, 4):
        torch.manual_seed(1)
        model = net()
        relume.freeze(model, "0", "1")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stop = relume.EarlyStopping("val/loss", patience=9, restore_best=True)
        with relume.Run("a", model=model, optimizer=optimizer, root=tmp_path, stop=stop, quiet=True) as run:
            for epoch in run.epochs(epochs):
                for x, y in run.batches(DATA):
                    functional.cross_entropy(model(x), y).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                run.log({"val/loss": float(epoch)})
        assert run.ledger.report().problems == ()


def test_models_that_are_added_are_looked_at(tmp_path: Path) -> None:
    first, second = net(), net()
    one = torch.optim.SGD(first.parameters(), lr=0.1)
    two = torch.optim.SGD(second[0].parameters(), lr=0.1)
    with (
        pytest.warns(
            RelumeWarning, match=r"4 of 6 trainable parameters of Sequential are in no optimizer .*: second.1.weight"
        ),
        relume.Run("a", model={"first": first}, optimizer={"one": one}, root=tmp_path, quiet=True) as run,
    ):
        step(first, one)
        run.add(model={"second": second}, optimizer={"two": two})
        for number in range(3):
            step(first, one, number)
            step(second, two, number)
    journal = (run.folder / "journal" / "0001.jsonl").read_text()
    assert journal.count("are in no optimizer") == 1


def test_sums_tell_tensors_apart_of_every_dtype_and_layout() -> None:
    kinds = [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.complex64,
        torch.int64,
        torch.uint8,
        torch.bool,
    ]
    for dtype in kinds:
        for shape in [(), (1,), (7,), (3, 5), (2, 3, 4, 5)]:
            one = torch.ones(shape).to(dtype)
            other = one.clone()
            assert measures.sums([one]) == measures.sums([other])
            other.view(-1)[-1] = 0
            assert measures.sums([one]) != measures.sums([other])
    images = torch.randn(2, 3, 4, 4)
    for same in (images.to(memory_format=torch.channels_last), images.transpose(0, 1).contiguous().transpose(0, 1)):
        before = measures.sums([same])
        same[1, 2, 3, 3] += 1
        assert measures.sums([same]) != before
    assert measures.sums([torch.empty(0), torch.empty(2, device="meta"), nn.LazyLinear(2).weight]) == [0, None, None]
    odd = torch.randn(9)[1:]  # not at an address of eight bytes
    assert measures.sums([odd]) == measures.sums([odd.clone()])


def test_gradients_of_every_size_are_told_apart() -> None:
    found = measures.gradients(
        [
            None,
            torch.zeros(3),
            torch.full((3,), 1e-40),
            torch.full((3,), 3e38),
            torch.full((3,), 6e4, dtype=torch.float16),
            torch.tensor([1.0, float("nan")]),
            torch.tensor([float("-inf")]),
            torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([2.0]), (3,), check_invariants=True),
        ]
    )
    kinds = ["none", "zero", "finite", "finite", "finite", "not finite", "not finite", "finite"]
    assert [kind for kind, _ in found] == kinds


def test_layers_in_a_list_are_found_with_a_closure_too() -> None:
    class InAList(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(4, 4)], nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layers[0](x))

    model = InAList()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    _ledger, _ = attach(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(DATA[0][0]), DATA[0][1])
        loss.backward()
        return loss

    with pytest.raises(PreflightError, match="layers is a plain list with 1 modules in it"):
        optimizer.step(closure)


def test_a_compiled_optimizer_is_watched_too() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ledger, said = attach(model, optimizer)
    compiled = torch.compile(optimizer.step, backend="eager")
    for x, y in DATA:
        functional.cross_entropy(model(x), y).backward()
        compiled()
        optimizer.zero_grad()
    ledger.end()
    assert said == [] and any(row.moved for row in ledger.report().rows)
