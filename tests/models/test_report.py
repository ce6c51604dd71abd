from __future__ import annotations

import functools

import pytest
import torch
import torchvision
from rich.console import Console
from torch import nn

from relume.errors import RelumeWarning
from relume.models.load import load_weights
from relume.models.report import Difference, LoadReport, grouped


@functools.cache  # a VGG takes seconds to initialise
def partial() -> LoadReport:
    model = torchvision.models.vgg11(num_classes=10)
    state = {f"module.{n}": v.half() for n, v in torchvision.models.vgg11(num_classes=7).state_dict().items()}
    state = {name: value for name, value in state.items() if "features.0." not in name}
    state["module.<b>extra</b>.weight"] = torch.ones(1)
    with pytest.warns(RelumeWarning):
        return load_weights(nn.DataParallel(model), state, strict=False, only=["features.*", "classifier.6.*"])


def test_a_report_is_short_and_names_what_matters() -> None:
    lines = str(partial()).splitlines()
    assert lines[0] == "VGG from the given tensors: 14 tensors, 9,218,688 of 128,807,306 parameters (7.2%)"
    assert len(lines) < 12
    text = "\n".join(lines)
    for part in (
        "converted   float16 to float32: features.3.* (2 tensors)",
        "missing     features.0.* (2 tensors)",
        "classifier.6.weight: (7, 4096) in the source, (10, 4096) in the model",
        "left out    classifier.0.* (2 tensors)",
    ):
        assert part in text


def test_a_report_is_data() -> None:
    report = partial()
    assert report.missing == ("features.0.weight", "features.0.bias")
    assert report.kept == (*report.missing, "classifier.6.weight", "classifier.6.bias")
    assert report.shape_mismatches["classifier.6.bias"] == Difference((7,), (10,))
    assert report.dtype_mismatches["features.3.bias"] == Difference(torch.float16, torch.float32)
    assert report.coverage == report.size_bytes / report.size_bytes_total
    assert not report.is_complete


def test_the_coverage_counts_tied_tensors_once_and_buffers_only_in_bytes() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    report = load_weights(model, model.state_dict())
    assert report.parameters == report.parameters_total == 16 + 8
    assert report.size_bytes_total == 4 * (16 + 8 + 8) + 8


def test_a_report_is_rendered_on_a_terminal_and_in_a_notebook() -> None:
    report = partial()
    console = Console(width=200, record=True, force_terminal=True)
    with console.capture() as captured:
        console.print(report)
    assert "VGG from the given tensors" in captured.get()
    assert "\x1b[" in captured.get()
    page = LoadReport("Net", "<script>", unexpected=("<b>extra</b>.weight",))._repr_html_()
    assert "<script>" not in page
    assert "&lt;b&gt;extra&lt;/b&gt;.weight" in page
    assert page.count("<tr>") == 1
    assert LoadReport("Net", "a file")._repr_html_().endswith("</b></div>")


def test_names_are_grouped_by_whole_modules() -> None:
    names = [f"layer{n}.{part}" for n in range(3) for part in ("weight", "bias")]
    assert grouped(names[:4], names) == ["layer0.* (2 tensors)", "layer1.* (2 tensors)"]
    assert grouped([f"a.{name}" for name in names], []) == ["a.* (6 tensors)"]
    assert grouped(["x"], names) == ["x"]
