"""The confusion matrix and the scores of each class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional import classification

from relume import Trainer, evaluate
from relume.errors import ConfigurationError, EmptyLoaderError, RunError
from relume.monitor.classes import ClassReport
from relume.page import text_of
from relume.train.classes import ClassCounts, class_report, count_classes, final_report

NAMES = ("cat", "dog", "newt")


def loader_of(labels: list[int], predicted: list[int], classes: int = 3) -> DataLoader:
    return DataLoader(TensorDataset(torch.eye(classes)[predicted], torch.tensor(labels)), batch_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_the_numbers_are_those_of_torchmetrics(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = (list(side) for side in zip(*pairs, strict=True))
    report = class_report(nn.Identity(), loader_of(labels, predicted, 5), "abcde")
    target, output = torch.tensor(labels), torch.tensor(predicted)
    expected = classification.multiclass_confusion_matrix(output, target, num_classes=5)
    assert torch.equal(torch.tensor(report.confusion), expected)
    for field in ("precision", "recall", "f1_score"):
        function = getattr(classification, f"multiclass_{field}")
        ours = "f1" if field == "f1_score" else field
        each = function(output, target, num_classes=5, average="none")
        assert torch.allclose(torch.tensor([getattr(s, ours) for s in report.scores]), each)
        for average in ("macro", "weighted"):
            mean = function(output, target, num_classes=5, average=average)
            assert getattr(getattr(report, average), ours) == pytest.approx(mean.item(), abs=1e-6)
    assert report.accuracy == pytest.approx((target == output).float().mean().item())


def test_one_hot_targets_and_negative_ones() -> None:
    output = torch.eye(3)[[0, 1, 2, 2]]
    assert count_classes(output, torch.eye(3)[[0, 1, 2, 0]], 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert count_classes(output, torch.tensor([0, -100, 2, -1]), 3).sum() == 2


def test_pixels_are_counted_too() -> None:
    output = torch.zeros(2, 3, 4, 4)
    output[:, 1] = 1
    assert count_classes(output, torch.ones(2, 4, 4, dtype=torch.long), 3)[1, 1] == 32


@pytest.mark.parametrize(
    ("output", "target", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), r"there are 3 classes, and the model's output is of shape \(4, 2\)"),
        (torch.zeros(4), torch.zeros(4), r"of shape \(4,\)"),
        ({"logits": torch.zeros(4, 3)}, torch.zeros(4), "a dict"),
        (torch.zeros(4, 3), None, "the batches have no target"),
        (torch.zeros(4, 3), torch.zeros(4), r"targets of shape \(4,\) and float32 are no classes"),
        (torch.zeros(4, 3), torch.zeros(5, dtype=torch.long), r"targets of shape \(5,\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted(output: object, target: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        count_classes(output, target, 3)


def test_an_empty_loader() -> None:
    with pytest.raises(EmptyLoaderError):
        class_report(nn.Identity(), [], NAMES)


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    report = ClassReport(NAMES, ((3, 1, 0), (0, 2, 0), (0, 0, 0)), epoch=4)
    assert ClassReport.load(tmp_path) is None
    report.save(tmp_path)
    assert ClassReport.load(tmp_path) == report


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"classes": ["a"], "confusion": [[1, 2]], "epoch": 1}',
        '{"classes": ["a", 2], "confusion": [[1, 2], [1, 2]], "epoch": 1}',
        '{"classes": ["a", "b"], "confusion": [[1, -2], [1, 2]], "epoch": 1}',
        '{"classes": ["a", "b"], "confusion": [[1, 2], [1, 2]], "epoch": "x"}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(RunError, match=r"classes.json is damaged .* Delete it"):
        ClassReport.load(tmp_path)


def test_up_to_twenty_classes_are_a_matrix_and_more_are_pairs() -> None:
    small = ClassReport(tuple(f"class {n}" for n in range(12)), tuple((n % 3,) * 12 for n in range(12)))
    assert "Which class (row) was taken for which (column)" in str(small)
    names = tuple(f"class {n}" for n in range(50))
    rows = [[0] * 50 for _ in range(50)]
    rows[7][9], rows[1][2] = 5, 3
    large = str(ClassReport(names, tuple(map(tuple, rows))))
    assert "The pairs mixed up most, 8 of 8 mistakes:" in large and "… 10 more" in large
    lines = [line for line in large.splitlines() if line.strip().startswith("class 7") and "class 9" in line]
    assert lines and lines[0].split()[-1] == "5"


def test_a_matrix_that_is_too_wide_becomes_pairs() -> None:
    report = ClassReport(tuple(f"class {n}" for n in range(20)), tuple((100_000,) * 20 for _ in range(20)))
    assert "The pairs mixed up most" in text_of(report.page(80), 80)
    assert max(map(len, text_of(report.page(80), 80).splitlines())) <= 80


def test_names_obey_nobody() -> None:
    report = ClassReport(("[red]a[/]", "<b>\x1b[31m"), ((1, 0), (0, 1)))
    assert "[red]a[/]" in str(report) and "\x1b" not in str(report)
    assert "<b>" not in report._repr_html_()


def test_a_trainer_counts_while_it_evaluates(tmp_path: Path, model: nn.Module, loader: DataLoader) -> None:
    counts = ClassCounts(NAMES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    metrics = {"accuracy": counts}
    trainer = Trainer(
        model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        metrics=metrics,
        callbacks=[counts],
        quiet=True,
        device="cpu",
    )
    result = trainer.fit(loader, loader, epochs=3, run="counted", root=tmp_path)
    report = final_report(trainer, counts, loader, result.folder, result.epochs)
    assert report.samples == 50 and report.epoch == 3
    assert report.accuracy == pytest.approx(result.last["val/accuracy"])
    assert report == class_report(model, loader, NAMES, epoch=3) == ClassReport.load(result.folder)
    assert evaluate(model, loader, metrics={"accuracy": ClassCounts(NAMES)})["accuracy"] == pytest.approx(
        report.accuracy
    )


def test_a_report_that_is_damaged_or_of_another_epoch_is_made_anew(
    tmp_path: Path, model: nn.Module, loader: DataLoader
) -> None:
    trainer = Trainer(model, loss=nn.CrossEntropyLoss(), device="cpu", quiet=True)
    expected = class_report(model, loader, NAMES, epoch=2)
    ClassReport(NAMES, ((9, 9, 9),) * 3, epoch=1).save(tmp_path)
    assert final_report(trainer, ClassCounts(NAMES), loader, tmp_path, 2) == expected
    (tmp_path / "classes.json").write_text("{")
    assert final_report(trainer, ClassCounts(NAMES), loader, tmp_path, 2) == expected
