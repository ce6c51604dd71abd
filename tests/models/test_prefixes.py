from __future__ import annotations

import pytest
import torch
from torch import nn

from relume.errors import MismatchError, RelumeWarning
from relume.models.load import load_weights
from relume.models.matching import find_prefix


def backbone() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "model.", "backbone.", "encoder.", "net.", "a.b.c."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_that_all_names_have_is_removed_and_said(prefix: str) -> None:
    source, model = backbone(), backbone()
    report = load_weights(model, {prefix + name: value for name, value in source.state_dict().items()})
    assert torch.equal(model[4].weight, source[4].weight)
    assert report.missing == report.unexpected == ()
    assert report.prefix_removed == prefix
    assert f"{prefix!r} removed from the names" in str(report)


def test_a_prefix_that_the_model_has_more_is_added_and_said() -> None:
    source = backbone()
    model = nn.ModuleDict({"backbone": backbone(), "head": nn.Linear(2, 2)})
    with pytest.warns(RelumeWarning, match="'backbone.' put before them"):
        report = load_weights(model, source.state_dict(), strict=False)
    assert torch.equal(model["backbone"][2].weight, source[2].weight)
    assert report.prefix_added == "backbone."
    assert report.kept == ("head.weight", "head.bias")


def test_one_prefix_takes_the_place_of_another() -> None:
    source = {f"student.{name}": value for name, value in backbone().state_dict().items()}
    model = nn.ModuleDict({"backbone": backbone()})
    report = load_weights(model, source)
    assert (report.prefix_removed, report.prefix_added) == ("student.", "backbone.")
    assert torch.equal(model["backbone"][0].weight, source["student.0.weight"])


def test_of_two_parts_that_fit_equally_none_is_taken() -> None:
    state = {
        f"{part}.{name}": value for part in ("student", "teacher") for name, value in backbone().state_dict().items()
    }
    model = backbone()
    with pytest.raises(MismatchError, match=r"'student\.' and 'teacher\.' fit equally well"):
        load_weights(model, state)
    with pytest.raises(MismatchError, match=r"rename=\{'student\.': ''\}"):
        load_weights(model, state)
    chosen = {name: value for name, value in state.items() if name.startswith("teacher")}
    load_weights(model, chosen, rename={"teacher.": ""})


def test_names_that_fit_are_not_touched() -> None:
    model = nn.ModuleDict({"model": backbone(), "module": nn.Linear(2, 2)})
    report = load_weights(model, model.state_dict())
    assert report.prefix_removed == report.prefix_added == ""
    mixed = {name.removeprefix("model."): value for name, value in model.state_dict().items()}
    report = load_weights(model, mixed)
    assert report.prefix_added == "model."


def test_a_prefix_with_which_shapes_do_not_fit_is_not_taken() -> None:
    state = {f"module.{name}": value for name, value in nn.Linear(3, 3).state_dict().items()}
    assert find_prefix(state, nn.Linear(4, 4).state_dict()).best.removed == ""


def test_no_two_names_become_one() -> None:
    own = {"a.x": torch.ones(2)}
    found = find_prefix({"a.a.x": torch.ones(2), "a.x": torch.ones(3)}, own)
    assert len(set(found.names.values())) == 2


def test_wrappers_of_single_modules_are_taken_out_too() -> None:
    model = nn.ModuleDict({"backbone": backbone(), "head": nn.Linear(2, 2)})
    state = {name.replace("backbone.", "backbone.module."): value for name, value in model.state_dict().items()}
    assert load_weights(model, state).is_complete
    state = {f"module.{name}": value for name, value in state.items()}
    assert load_weights(model, state).is_complete


def test_what_is_unexpected_keeps_the_name_that_the_source_has() -> None:
    state = {f"module.{name}": value for name, value in backbone().state_dict().items()}
    with pytest.raises(MismatchError, match=r"unexpected  module\.extra\.weight"):
        load_weights(backbone(), {**state, "module.extra.weight": torch.ones(1)})
