"""Two states, bit for bit."""

from __future__ import annotations

import copy
import math
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from relume.rehearse.states import compare_states

OTHER_NAN = struct.unpack("d", struct.pack("Q", 0x7FF8000000000001))[0]

STATE: dict[str, Any] = {
    "models": {"model": OrderedDict(weight=torch.arange(6.0).reshape(2, 3), bias=torch.zeros(0))},
    "optimizers": {"main": {"groups": [{"lr": 0.1, "betas": (0.9, 0.99)}], "state": {"step": torch.tensor(3)}}},
    "random": {"numpy": np.arange(4, dtype=np.uint64), "nan": math.nan, "bytes": b"abc", "set": {1, 2}, "c": 1 + 2j},
    "run": {"last": {"train/loss": 0.5, "step_time": 0.1}},
}


def test_a_state_is_the_same_as_its_copy_and_is_counted() -> None:
    found = compare_states(STATE, copy.deepcopy(STATE))
    assert (found.differences, found.by_nature) == ([], [])
    assert (found.counts["models"].tensors, found.counts["models"].size_bytes) == (2, 24)
    assert found.counts["optimizers"].leaves == 4


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("models", "model", "weight"), torch.arange(6.0).reshape(3, 2), "float32 [2, 3] and float32 [3, 2]"),
        (("models", "model", "weight"), torch.arange(6).reshape(2, 3), "float32 [2, 3] and int64 [2, 3]"),
        (
            ("models", "model", "weight"),
            torch.tensor([[0.0, 1, 2], [3, 4.5, 5.5]]),
            "2 of 6 values differ, first at [1, 1]: 4.0 and 4.5",
        ),
        (("models", "model", "weight"), torch.tensor([[-0.0, 1, 2], [3, 4, 5]]), "first at [0, 0]: 0.0 and -0.0"),
        (("models", "model", "bias"), None, "of type Tensor and of type NoneType"),
        (("optimizers", "main", "groups", 0, "lr"), 0.1 + 1e-17 * 2, "0.1 and 0.10000000000000002"),
        (("optimizers", "main", "groups", 0, "lr"), 1, "of type float and of type int"),
        (("optimizers", "main", "groups", 0, "betas"), (0.9, 0.99, 0.5), "only the second run has it"),
        (("optimizers", "main", "state", "step"), torch.tensor(4), "3 and 4"),
        (("random", "numpy"), np.array([0, 1, 2, 4], dtype=np.uint64), "1 of 4 values differs, first at [3]: 3 and 4"),
        (("random", "nan"), OTHER_NAN, "nan and nan"),
        (("random", "bytes"), b"abd", "b'abc' and b'abd'"),
        (("random", "set"), {1, 3}, "{1, 2} and {1, 3}"),
        (("random", "c"), complex(1, -2), "(1+2j) and (1-2j)"),
        (("run", "last", "train/loss"), -0.5, "0.5 and -0.5"),
    ],
)
def test_each_difference_is_found_named_and_said(path: tuple[Any, ...], value: Any, text: str) -> None:
    other = copy.deepcopy(STATE)
    inner: Any = other
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (difference,) = compare_states(STATE, other).differences
    assert difference.place.startswith(".".join(map(str, path)))
    assert text in difference.text


def test_what_one_lacks_is_a_difference_on_either_side() -> None:
    other = copy.deepcopy(STATE)
    del other["models"]["model"]["weight"]
    assert [d.text for d in compare_states(STATE, other).differences] == ["only the first run has it"]
    assert [d.text for d in compare_states(other, STATE).differences] == ["only the second run has it"]


def test_the_same_nan_is_the_same_and_another_is_not() -> None:
    one, other = torch.tensor([math.nan]), torch.tensor([math.nan])
    assert not compare_states({"a": one}, {"a": other}).differences
    other.view(torch.int32)[0] += 1
    assert compare_states({"a": one}, {"a": other}).differences


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.complex64])
def test_every_dtype_is_compared(dtype: torch.dtype) -> None:
    one = torch.ones(3).to(dtype)
    other = one.clone()
    assert not compare_states(one, other).differences
    other.view(torch.uint8)[0] ^= 1
    assert compare_states(one, other).differences


def test_metrics_of_time_differ_by_nature_and_others_of_that_name_do_not() -> None:
    other = copy.deepcopy(STATE)
    other["run"]["last"]["step_time"] = 0.2
    found = compare_states(STATE, other)
    assert (found.differences, found.by_nature) == ([], ["step_time"])
    assert compare_states(
        {"tracked": {"clock": {"step_time": 1}}}, {"tracked": {"clock": {"step_time": 2}}}
    ).differences
