"""Graphs of models and figures of matplotlib: they change nothing of what they are made from."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.generators import fingerprint
from relume.monitor.kinds import Figure, Graph, read


def nodes(tmp_path: Path, model: nn.Module, example: object) -> list[dict]:
    return read(tmp_path, Graph(model, example).content(tmp_path))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout())
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, *, extra: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        x = x + self.inner(x) + torch.rand(1)
        x[0] = 0.0
        return x if extra is None else x * extra


def test_each_operation_names_its_module_and_where_its_inputs_come_from(tmp_path: Path) -> None:
    found = {node["name"]: node for node in nodes(tmp_path, Residual(), torch.ones(2, 4))}
    assert found["inner/0/linear"]["inputs"] == ["input", "inner/0/weight", "inner/0/bias"]
    assert found["inner/1/batch_norm"]["op"] == "batch_norm" and found["inner/1/running_mean"]["op"] == "buffer"
    assert found["inner/2/dropout"]["inputs"] == ["inner/1/batch_norm"]
    assert found["input"] == {"name": "input", "op": "input", "inputs": [], "shape": [2, 4]}
    names = list(found)
    for place, node in enumerate(found.values()):
        assert all(names.index(source) < place for source in node["inputs"]), "a graph has no cycles"


@pytest.mark.parametrize(
    "given", [(torch.ones(2, 4),), [torch.ones(2, 4)], {"x": torch.ones(2, 4), "extra": torch.ones(1)}]
)
def test_examples_may_be_arguments_or_named(tmp_path: Path, given: object) -> None:
    assert nodes(tmp_path, Residual(), given)[-1]["shape"] == [2, 4]


class NeedsValues(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        with torch.no_grad():
            self.inner[0].weight.data.clamp_(-0.01, 0.01)
        return super().forward(x) if x.sum() > 0 else x


class Broken(Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        torch.rand(5), np.random.rand(), random.random()
        raise RuntimeError("no forward\nat all")


@pytest.mark.parametrize("kind", [Residual, NeedsValues, Broken])
@pytest.mark.parametrize("is_training", [True, False])
def test_weights_buffers_modes_and_random_numbers_stay(
    tmp_path: Path, kind: type[nn.Module], is_training: bool
) -> None:
    model, example = kind().train(is_training), torch.ones(2, 4)
    model.inner[2].eval()
    seen: list[object] = []
    model.inner.register_forward_hook(lambda *_: seen.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, random_state = [part.training for part in model.modules()], fingerprint()
    Graph(model, example).content(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes and fingerprint() == random_state
    assert not seen and torch.equal(example, torch.ones(2, 4))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_model_that_cannot_run_is_shown_as_its_modules(tmp_path: Path) -> None:
    content = Graph(Broken(), torch.ones(2, 4)).content(tmp_path)
    assert content["problem"] == "RuntimeError: no forward"
    found = read(tmp_path, content)
    assert [(node["name"], node["op"]) for node in found][:2] == [("inner", "Sequential"), ("inner/0", "Linear")]
    assert "problem" in Graph(nn.LazyLinear(3), torch.ones(2, 4)).content(tmp_path)
    assert "problem" not in Graph(NeedsValues(), torch.ones(2, 4)).content(tmp_path)


def test_attention_shared_and_compiled_modules(tmp_path: Path) -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    assert len(nodes(tmp_path, encoder, torch.ones(1, 3, 8))) > 10
    shared = nn.Linear(4, 4)
    found = nodes(tmp_path, nn.Sequential(shared, shared), torch.ones(1, 4))
    assert [node["op"] for node in found].count("parameter") == 2 and found[-1]["inputs"][0] == "0/linear"
    assert len({node["name"] for node in found}) == len(found)
    assert nodes(tmp_path, torch.compile(nn.Linear(4, 2)), torch.ones(1, 4))[-1]["name"] == "linear"


def test_no_module_has_no_graph() -> None:
    with pytest.raises(ConfigurationError, match="a function is no nn.Module"):
        Graph(lambda x: x, torch.ones(1))


# ---------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture
def figure():
    from matplotlib.figure import Figure as Drawing

    made = Drawing(figsize=(3, 2), dpi=100)
    made.subplots().plot([1, 3, 2], label="loss")
    return made


def test_a_figure_is_kept_as_png_and_svg_as_it_was_then(tmp_path: Path, figure) -> None:
    made = Figure(figure)
    figure.clear()
    content = made.content(tmp_path)
    assert (content["width"], content["height"]) == (300, 200)
    picture = read(tmp_path, content)
    assert picture.size == (300, 200) and len(picture.getcolors(1 << 16)) > 10
    assert (tmp_path / content["svg"]).read_text().startswith("<?xml")


def test_the_same_figure_gives_the_same_files_and_its_axes_are_it_too(tmp_path: Path, figure) -> None:
    contents = [Figure(given).content(tmp_path) for given in (figure, figure, figure.axes[0])]
    assert contents[0] == contents[1] == contents[2]
    assert "svg" not in Figure(figure, svg=False).content(tmp_path)


def test_what_is_no_figure_or_cannot_be_drawn_is_refused(figure) -> None:
    with pytest.raises(ConfigurationError, match="a int is no figure of matplotlib"):
        Figure(5)
    figure.axes[0].set_title(r"$\frac{$")
    with pytest.raises(ConfigurationError, match="it cannot be drawn"):
        Figure(figure)
