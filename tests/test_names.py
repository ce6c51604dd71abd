"""Names are the same for a model and for its wrapped form."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from relume.names import canonical, canonical_in, parameter_names, unwrap


class Own(nn.Module):
    """A user's module that happens to call its parts as the wrappers do."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.weight = nn.Parameter(torch.ones(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weight", "weight"),
        ("module.0.weight", "0.weight"),
        ("_orig_mod.module.0.weight", "0.weight"),
        ("encoder._orig_mod.layer.weight", "encoder.layer.weight"),
        ("encoder.module.weight", "encoder.weight"),
        ("submodule.weight", "submodule.weight"),
        ("my_module.module", "my_module.module"),
    ],
)
def test_a_name_loses_the_segments_of_wrappers(name: str, expected: str) -> None:
    assert canonical(name) == expected


def wrapped(model: nn.Module) -> list[nn.Module]:
    compiled = torch.compile(model)
    return [nn.DataParallel(model), compiled, nn.DataParallel(compiled), torch.compile(nn.DataParallel(model))]


def test_a_wrapped_model_has_the_names_of_the_plain_one() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    plain = parameter_names({"model": model})
    assert list(plain.values()) == ["model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"]
    for wrapper in wrapped(model):
        assert parameter_names({"model": wrapper}) == plain


def test_a_wrapped_part_has_the_names_of_the_plain_one() -> None:
    part = nn.Linear(2, 3)
    plain = parameter_names({"m": nn.Sequential(part, nn.ReLU())})
    for wrapper in wrapped(part):
        assert parameter_names({"m": nn.Sequential(wrapper, nn.ReLU())}) == plain


def test_a_users_own_submodule_called_module_keeps_its_name() -> None:
    own = Own()
    names = set(parameter_names({"model": own}).values())
    assert names == {"model.weight", "model.module.weight", "model.module.bias"}
    assert set(parameter_names({"model": nn.DataParallel(own)}).values()) == names
    assert canonical_in(nn.DataParallel(own))("module.module.weight") == "module.weight"


def test_a_tied_parameter_has_the_first_of_its_names() -> None:
    model = Tied()
    assert parameter_names({"model": model, "again": model}) == {id(model.embedding.weight): "model.embedding.weight"}


def test_unwrap_gives_the_module_inside() -> None:
    model = nn.Linear(2, 2)
    assert unwrap(model) is model
    for wrapper in wrapped(model):
        assert unwrap(wrapper) is model
    own = Own()
    assert unwrap(own) is own
