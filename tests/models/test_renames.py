from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from relume.errors import ConfigurationError
from relume.models.load import load_weights
from relume.models.renames import chosen, renamed

NAMES = ["net.conv1.weight", "net.conv1.bias", "net.conv10.weight", "head.weight"]


@pytest.mark.parametrize(
    ("rename", "expected"),
    [
        ({"net.conv1": "stem"}, ["stem.weight", "stem.bias", "net.conv10.weight", "head.weight"]),
        ({"net.": ""}, ["conv1.weight", "conv1.bias", "conv10.weight", "head.weight"]),
        ({"net": ""}, ["conv1.weight", "conv1.bias", "conv10.weight", "head.weight"]),
        ({"net": "a", "net.conv1.bias": "b"}, ["a.conv1.weight", "b", "a.conv10.weight", "head.weight"]),
        ([(r"^net\.", ""), (r"conv(\d+)", r"c\1")], ["c1.weight", "c1.bias", "c10.weight", "head.weight"]),
        (str.upper, [name.upper() for name in NAMES]),
        (None, NAMES),
    ],
)
def test_each_kind_of_rename(rename: Any, expected: list[str]) -> None:
    assert list(renamed(rename, NAMES).values()) == expected


def test_a_function_may_leave_tensors_out() -> None:
    source = {**nn.Linear(2, 2).state_dict(), "ema": torch.ones(1)}
    report = load_weights(nn.Linear(2, 2), source, rename=lambda name: None if name == "ema" else name)
    assert report.unexpected == ()
    assert renamed(lambda name: None, NAMES) == {}


def test_renamed_tensors_are_said() -> None:
    report = load_weights(
        nn.Linear(2, 2), {"w": torch.ones(2, 2), "b": torch.ones(2)}, rename={"w": "weight", "b": "bias"}
    )
    assert report.renamed == {"w": "weight", "b": "bias"}
    assert "w -> weight" in str(report)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"nett": "x"}, "no tensor of the source is called 'nett' or begins with it: did you mean 'net'"),
        ({"net": 3}, "a dict maps names or prefixes"),
        ([("(", "x")], "is no substitution"),
        ([("head", r"\7")], "is no substitution"),
        ([("zzz", "x")], "the pattern 'zzz' is found in no name"),
        ([("a",)], "is no .regular expression, replacement"),
        (lambda name: 3, "the function gave 3 for 'net.conv1.weight'"),
        (lambda name: "one", "would all be called 'one'"),
        ("automatic", "rename='automatic': give 'auto'"),
        (3, "rename=3: give 'auto'"),
    ],
)
def test_a_rename_that_makes_no_sense_is_named(rename: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        renamed(rename, NAMES)


def test_patterns_choose_names_and_modules() -> None:
    assert chosen(None, NAMES) == NAMES
    assert chosen("net.conv1", NAMES) == NAMES[:2]
    assert chosen(["head.*", "*.bias"], NAMES) == [NAMES[1], NAMES[3]]


def test_a_function_that_fails_is_named_with_the_tensor() -> None:
    table = {"a.weight": "b.weight"}
    with pytest.raises(ConfigurationError, match=r"the function fails for 'a.bias' with KeyError: 'a.bias'"):
        renamed(table.__getitem__, ["a.weight", "a.bias"])
