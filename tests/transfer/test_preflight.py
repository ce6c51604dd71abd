"""One pass before the training tells what would go wrong, and leaves no trace."""

from __future__ import annotations

import copy
import io
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import relume
from relume.errors import BatchError, ConfigurationError, LossError, OptimizerError, PreflightError, TargetError
from relume.generators import fingerprint
from relume.transfer.findings import PreflightReport, Problem, Row, blocks
from relume.transfer.preflight import preflight


def net() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5)), nn.Linear(8, 3))


def sgd(model: nn.Module, lr: float = 0.1, **more: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, **more)


BATCH = (torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3)
LOSS = nn.CrossEntropyLoss()


def look(model: nn.Module, optimizer: Any = None, batch: Any = BATCH, loss: Any = LOSS) -> PreflightReport:
    return preflight(model, sgd(model) if optimizer is None else optimizer, batch, loss)


def codes(report: PreflightReport) -> list[str]:
    return [problem.code for problem in report.problems]


def test_a_good_model_has_a_row_for_each_parameter_and_no_problems() -> None:
    model = net()
    relume.freeze(model, "0.0")
    report = look(model, sgd(model, momentum=0.9, weight_decay=0.01))
    assert report.problems == () and report.raise_for_errors() is report
    rows = {row.name: row for row in report.rows}
    assert list(rows) == ["0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias", "1.weight", "1.bias"]
    frozen, trained = rows["0.0.weight"], rows["1.weight"]
    assert (frozen.trainable, frozen.held, frozen.gradient, frozen.count) == (False, True, "", 32)
    assert (trained.optimizer, trained.group, trained.lr, trained.weight_decay) == ("optimizer", 0, 0.1, 0.01)
    assert trained.gradient == "finite" and trained.norm > 0 and trained.moved is None and not trained.held


def test_the_gradients_are_those_of_a_plain_backward_pass() -> None:
    model = nn.Linear(4, 3)
    rows = {row.name: row.norm for row in look(model).rows}
    LOSS(model(BATCH[0]), BATCH[1]).backward()
    for name, parameter in model.named_parameters():
        assert rows[name] == pytest.approx(float(parameter.grad.norm()))


class Counting(nn.Module):
    """Changes itself in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.last: Any = None
        self.inner = net()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x
        self.mean = self.mean * 0.9 + x.mean(0) * 0.1 * float(torch.rand(()) + np.random.rand() + random.random())
        return self.inner(x)


@pytest.mark.parametrize("has_gradients", [True, False])
def test_nothing_is_left_of_the_pass(has_gradients: bool) -> None:
    model = Counting()
    relume.freeze(model, "inner.0.0", "inner.0.1")
    model.eval()
    optimizer = torch.optim.Adam(model.parameters())
    if has_gradients:
        LOSS(model(BATCH[0]), BATCH[1]).backward()
    before = {name: (value, value._version, value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    gradients = [(p.grad, None if p.grad is None else (p.grad._version, p.grad.clone())) for p in model.parameters()]
    modes, calls, last, state = [one.training for one in model.modules()], model.calls, model.last, fingerprint()
    report = look(model, optimizer)
    assert {row.gradient for row in report.rows if row.trainable} == {"finite"}
    after = model.state_dict(keep_vars=True)
    for name, (value, version, copied) in before.items():
        assert after[name] is value and value._version == version and torch.equal(value, copied), name
    for parameter, (gradient, kept) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert kept is None or (gradient._version == kept[0] and torch.equal(gradient, kept[1]))
    assert [one.training for one in model.modules()] == modes
    assert (model.calls, model.last is last, fingerprint()) == (calls, True, state)
    assert not optimizer.state
    relume.unfreeze(model)
    assert not any(one.training for one in model.modules()), "what is held remembers the mode that was asked for"


def test_a_training_after_it_is_the_same_bit_for_bit() -> None:
    def trained(looks: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)
        model = net()
        optimizer = sgd(model, momentum=0.9)
        for _ in range(3):
            if looks:
                look(model, optimizer)
            optimizer.zero_grad()
            LOSS(model(BATCH[0]), BATCH[1]).backward()
            optimizer.step()
        return list(model.state_dict().values())

    assert all(torch.equal(one, other) for one, other in zip(trained(True), trained(False), strict=True))


def test_a_pass_that_fails_leaves_nothing_either() -> None:
    class Failing(Counting):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            super().forward(x)
            raise ValueError("in the middle")

    model = Failing()
    mean, state = model.mean, fingerprint()
    with pytest.raises(ValueError, match="in the middle"):
        look(model)
    assert model.calls == 0 and model.mean is mean and mean._version == 0 and fingerprint() == state


@pytest.mark.parametrize("is_reentrant", [True, False])
def test_parts_that_are_recomputed_have_gradients(is_reentrant: bool) -> None:
    class Recomputed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(checkpoint(self.first, self.first(x), use_reentrant=is_reentrant))

    model = Recomputed()
    model.first.weight.grad = kept = torch.ones(4, 4)
    assert [row.gradient for row in look(model).rows] == ["finite"] * 4
    assert model.first.weight.grad is kept and model.second.weight.grad is None


def test_wrapped_models_and_nested_batches_work() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.layer(pixels)

    model = Named()
    for wrapped in (model, nn.DataParallel(model), torch.compile(model, backend="eager")):
        report = look(wrapped, sgd(model), {"pixels": BATCH[0], "labels": BATCH[1]})
        assert report.problems == () and report.rows[0].name == "layer.weight" and report.model == "Named"
    assert look(model, sgd(model), [BATCH[0]], lambda output: output.mean()).problems == ()


def wrong(change: Any) -> tuple[nn.Module, Any]:
    model = nn.Sequential(net(), nn.Linear(3, 3))
    return model, change(model) or sgd(model)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda m: sgd(m[0]), "left out", r"are in no optimizer and will not change: 1.weight, 1.bias"),
        (lambda m: sgd(net()), "holds none", "it was made from another model"),
        (lambda m: relume.freeze(m) and None, "nothing to train", "all 8 parameters of Sequential are frozen"),
        (lambda m: setattr(m[1].weight, "requires_gard", False), "misspelt", "1.weight.requires_gard = False has no effect"),
        (lambda m: setattr(m[0], "requires_grad", False), "misspelt", "0.requires_grad = False has no effect"),
        (lambda m: m[0].requires_grad_(False) and None, "drifting statistics", "statistics of 1 frozen batch norms move"),
        (lambda m: nn.init.zeros_(m[1].weight) is None or None, "zero gradient", "was zero in every element for this batch: 0.0.0.weight"),
        (lambda m: sgd(m, 0.0), "lr is zero", "the learning rate of group 0 of optimizer is 0, so 8 parameters"),
        (lambda m: [sgd(m), sgd(m[1])], "two optimizers", "optimizer0 and optimizer1 hold the same parameters"),
        (lambda m: [sgd(m[0]), sgd(m[1].requires_grad_(False))], "holds only frozen", "optimizer1 holds only frozen"),
        (lambda m: m.add_module("2", nn.Linear(3, 3).requires_grad_(False)), None, None),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_problem(change: Any, code: str | None, message: str | None) -> None:
    model, optimizer = wrong(change)
    report = look(model, optimizer)
    if code is None:
        assert report.problems == ()
        return
    found = [problem for problem in report.problems if problem.code == code]
    assert len(found) == 1, codes(report)
    assert re.search(message or "", found[0].text), found[0].text
    assert found[0].text in str(report)


def test_a_detached_loss_and_a_branch_that_is_not_used() -> None:
    model = net()
    report = preflight(model, sgd(model), BATCH, lambda output, target: LOSS(output.detach(), target))
    assert codes(report) == ["detached"]
    with pytest.raises(PreflightError, match=r"the loss does not depend on any trainable parameter.*look for detach"):
        report.raise_for_errors()
    model.add_module("spare", nn.Linear(2, 2))
    model.forward = lambda x: model[1](model[0](x))  # type: ignore[method-assign]
    report = look(model)
    assert codes(report) == ["no gradient"] and report.errors == () and report.warnings == report.problems
    assert report.problems[0].names == ("spare.weight", "spare.bias")


def test_layers_in_a_list_are_found_without_a_gradient_left_on_them() -> None:
    class InAList(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = [nn.Linear(4, 4)], nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layers[0](x))

    model = InAList()
    report = look(model)
    assert codes(report) == ["not registered"] and "layers is a plain list with 1 modules" in report.problems[0].text
    assert model.layers[0].weight.grad is None


def test_errors_are_raised_together_and_the_kind_fits() -> None:
    model, optimizer = wrong(lambda m: sgd(net()))
    with pytest.raises(OptimizerError, match="holds none of the 8 trainable parameters"):
        look(model, optimizer).raise_for_errors()
    model[1].weight.require_grad = False
    with pytest.raises(PreflightError, match=r"(?s)1\. 1.weight.require_grad = False.*2\. the optimizer holds none"):
        look(model, optimizer).raise_for_errors()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": {}}, ConfigurationError, r"model must be an nn\.Module, not a dict"),
        ({"optimizer": "sgd"}, OptimizerError, r"optimizer must be a torch\.optim\.Optimizer, not str"),
        ({"loss": None}, ConfigurationError, r"loss must be a function of \(output, target\), not a NoneType"),
        ({"loss": lambda output, target: 1.0}, LossError, "the loss must be one number, not a float"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, LossError, r"not a tensor of shape \(8,\): take its \.mean\(\)"),
        ({"batch": (BATCH[0], BATCH[0], BATCH[1])}, BatchError, "forward does not take what the loader gives"),
        ({"batch": (BATCH[0], BATCH[1] + 1)}, TargetError, "target 3 at place 2 of the batch is out of range"),
        ({"model": nn.LazyLinear(3)}, ConfigurationError, "weight has no shape yet: give the model one batch first"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    model = net()
    given = {"model": model, "optimizer": sgd(model), "batch": BATCH, "loss": LOSS} | arguments
    with pytest.raises(error, match=message):
        preflight(**given)


def test_no_optimizer_is_a_problem() -> None:
    assert codes(preflight(net(), None, BATCH, LOSS)) == ["no optimizer"]


@pytest.mark.parametrize("wrong", ["loader", "iterator", None, "a batch"])
def test_what_is_no_batch_is_refused(wrong: str | None) -> None:
    loader = DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4, 1)))
    batch = {"loader": loader, "iterator": iter(loader)}.get(wrong or "", wrong)
    model = nn.Linear(2, 1)
    with pytest.raises(BatchError, match=r"batch must be one batch, not a \w+: give next\(iter\(loader\)\)"):
        preflight(model, torch.optim.SGD(model.parameters(), lr=0.1), batch, nn.MSELoss())


def test_the_report_shows_blocks_and_problems() -> None:
    model = net()
    model[1].bias.requiers_grad = False
    report = look(model)
    lines = str(report).splitlines()
    assert lines[0] == "Sequential: 83 of 83 parameters trained; 1 error"
    assert lines[1].split() == ["trainable", "frozen", "optimizer", "gradient", "norm", "moved"]
    assert [line.split()[0] for line in lines[2:-1]] == ["0.0", "0.1", "1"]
    assert "optimizer[0] lr 0.1" in lines[2] and "finite" in lines[2]
    assert lines[-1].startswith("error: 1.bias.requiers_grad")
    assert "1.bias.requiers_grad" in report._repr_html_() and "<table" in report._repr_html_()
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report)
    assert "requiers_grad" in console.export_text()


def test_names_cannot_write_to_a_page_or_a_terminal() -> None:
    row = Row("<script>\x1b[31m.weight", 1, True)
    report = PreflightReport("Net", (row,), (Problem("x", "error", "<b>", ()),))
    assert "<script>" not in report._repr_html_() and "<b>&lt;b&gt;" not in report._repr_html_()
    assert "\x1b" not in str(report)


def test_blocks_are_as_deep_as_leaves_few() -> None:
    rows = [Row(f"layers.{n}.part.{m}.weight", 1, True) for n in range(12) for m in range(12)]
    assert list(blocks(rows)) == [f"layers.{n}.part" for n in range(12)]
    assert str(PreflightReport("Net", ())).startswith("Net: 0 of 0 parameters")


def test_a_real_network_is_looked_at_as_it_is() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18(num_classes=3)
    relume.freeze(model, trainable="fc")
    twin = copy.deepcopy(model.state_dict())
    report = look(
        model, torch.optim.AdamW(model.parameters(), weight_decay=0.1), (torch.randn(2, 3, 32, 32), BATCH[1][:2])
    )
    assert report.problems == () and [row.name for row in report.rows if row.gradient] == ["fc.weight", "fc.bias"]
    assert all(torch.equal(value, twin[name]) for name, value in model.state_dict().items())
