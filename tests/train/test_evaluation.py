"""evaluate(): right over a short last batch, and without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader

import relume
from relume.errors import ConfigurationError
from relume.generators import fingerprint
from relume.train.metrics import MetricSet


def test_functions_are_weighted_and_torchmetrics_computed_over_all(model, loader) -> None:
    x, y = loader.dataset.tensors
    metrics = {
        "mine": relume.accuracy,
        "theirs": torchmetrics.classification.MulticlassAccuracy(3, average="micro"),
        "each": torchmetrics.classification.MulticlassRecall(3, average=None),
        "constant": lambda output, target: 2.0,
    }
    found = relume.evaluate(
        model, DataLoader(loader.dataset, 16), loss=nn.CrossEntropyLoss(), metrics=metrics, prefix="val/"
    )
    truth = (model(x).argmax(1) == y).double().mean().item()
    assert found["val/mine"] == pytest.approx(truth, rel=1e-12) and found["val/theirs"] == pytest.approx(truth)
    assert found["val/constant"] == 2.0 and {"val/each/0", "val/each/1", "val/each/2"} <= set(found)
    assert found["val/loss"] == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-6)
    again = relume.evaluate(model, DataLoader(loader.dataset, 16), metrics=metrics)
    assert again["theirs"] == pytest.approx(truth)


def test_modes_random_numbers_and_gradients_stay_as_they_are(loader) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 3))
    model.train()
    model[2].eval()
    before, state = fingerprint(), {k: v.clone() for k, v in model.state_dict().items()}

    def noisy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.rand(())

    first = relume.evaluate(model, loader, loss=nn.CrossEntropyLoss(), metrics={"noise": noisy})
    assert fingerprint() == before
    assert [m.training for m in model] == [True, True, False, True] and model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert relume.evaluate(model, loader, loss=nn.CrossEntropyLoss(), metrics={"noise": noisy}) == first


def test_an_error_in_the_middle_puts_everything_back(model, loader) -> None:
    def breaks(output: Any, target: Any) -> Any:
        raise ZeroDivisionError

    model.train()
    before = fingerprint()
    with pytest.raises(ZeroDivisionError):
        relume.evaluate(model, loader, metrics={"x": breaks})
    assert model.training and fingerprint() == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_metric_that_is_no_mean_is_refused(model, loader) -> None:
    with pytest.raises(ConfigurationError, match=r"metric 'x' gave a tensor of shape \(16,\)"):
        relume.evaluate(model, loader, metrics={"x": lambda output, target: output.argmax(1) == target})


@pytest.mark.parametrize(
    ("output", "target", "share"),
    [
        ([[2.0, 1.0], [0.0, 3.0]], [0, 0], 0.5),
        ([0.3, -1.0, 2.0, -0.1], [1, 0, 0, 0], 0.75),
        ([[0.3], [-1.0]], [[1], [1]], 0.5),
        ([[2.0, 1.0], [0.0, 3.0]], [[0.9, 0.1], [0.2, 0.8]], 1.0),
    ],
)
def test_accuracy_of_many_and_of_two_classes(output: list, target: list, share: float) -> None:
    assert relume.accuracy(torch.tensor(output), torch.tensor(target)).item() == share


def test_without_metrics_there_is_nothing_to_compute() -> None:
    assert MetricSet(None, torch.device("cpu")).compute() == {}


def test_nested_outputs_are_predicted_in_their_form(loader) -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> dict:
            return {"sum": x.sum(1), "parts": (x, x * 2)}

    found = relume.predict(Two(), DataLoader(loader.dataset, 16))
    assert found["sum"].shape == (50,) and found["parts"][1].shape == (50, 4)


# ----------------------------------------------------------------------------------- found by attacking it, and mended


def test_a_module_that_fills_a_cache_in_an_evaluation_can_be_trained_afterwards(loader) -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.table = nn.Linear(4, 3), None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.table is None:
                self.table = torch.ones(4) * 2
            return self.layer(x * self.table)

    model = Cached()
    relume.evaluate(model, loader, loss=nn.CrossEntropyLoss())
    model(loader.dataset.tensors[0].requires_grad_()).sum().backward()


def test_evaluating_a_part_of_a_dataset_and_training_on_all_of_it_works(tmp_path) -> None:
    class Slow(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.full((4,), float(index)), 0

    model, data = nn.Linear(4, 3), Slow()
    relume.evaluate(model, DataLoader(data, 4, sampler=range(12)), loss=nn.CrossEntropyLoss())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    trainer = relume.Trainer(model, loss=nn.CrossEntropyLoss(), optimizer=optimizer, device="cpu", quiet=True)
    assert trainer.fit(DataLoader(data, 4, shuffle=True), epochs=1, root=tmp_path).steps == 5


def test_the_users_torchmetrics_object_keeps_its_state(model, loader) -> None:
    metric = torchmetrics.MeanMetric()
    metric.update(3.0)
    relume.evaluate(
        model, loader, metrics={"x": torchmetrics.classification.MulticlassAccuracy(3), "y": relume.accuracy}
    )
    with pytest.raises(ConfigurationError, match="metric 'z' gave None"):
        relume.evaluate(model, loader, metrics={"z": lambda output, target: None})
    assert metric.compute() == 3.0


def test_a_changed_dataset_is_evaluated_as_it_is(model) -> None:
    data = torch.utils.data.TensorDataset(torch.randn(40, 4), torch.zeros(40, dtype=torch.int64))
    loader = DataLoader(data, 8)

    def share(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return target.float().mean()

    assert relume.evaluate(model, loader, metrics={"share": share}) == {"share": 0.0}
    data.tensors[1][:10] = 1
    with pytest.warns(relume.RelumeWarning, match="no longer kept in memory"):
        relume.evaluate(model, loader, metrics={"share": share})
    assert relume.evaluate(model, loader, metrics={"share": share}) == {"share": 0.25}
