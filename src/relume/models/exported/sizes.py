"""Arithmetic over sizes: the few functions that a graph computes shapes with, on Python's numbers.

They take torch's symbolic numbers as well, so that a loaded graph can be exported again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

_MAX_INTEGER = 1 << 63
_MAX_EXPONENT = 64


def _power(base: Any, exponent: Any) -> Any:
    _check_exponent(exponent)
    return base**exponent


def _left(value: Any, places: Any) -> Any:
    _check_exponent(places)
    return value << places


def _check_exponent(exponent: Any) -> None:
    """A tower of powers would keep the processor busy for ever."""
    if isinstance(exponent, (int, float)) and abs(exponent) > _MAX_EXPONENT:
        raise OverflowError(f"the exponent {exponent!r:.40} of a size; {_MAX_EXPONENT} is the largest")


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(*arguments: Any) -> Any:
        value = function(*arguments)
        if type(value) is int and abs(value) > _MAX_INTEGER:
            raise OverflowError(f"a size of more than {_MAX_INTEGER}")
        return value

    return compute


ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            "eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "floordiv", "mod", "truediv", "and_", "or_", "not_", "abs",
            "rshift",
        )
    },
    **{f"_operator.{name}": _bounded(getattr(operator, name)) for name in ("mul", "add", "sub")},
    "_operator.pow": _bounded(_power),
    "_operator.lshift": _bounded(_left),
    **{f"math.{name}": getattr(math, name) for name in ("trunc", "ceil", "floor")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min", "sym_sum", "sym_sqrt")
        if hasattr(torch, name)
    },
    **{f"torch.{name}": getattr(torch, name) for name in ("_sym_sqrt",) if hasattr(torch, name)},
}  # fmt: skip
"""By the name that a document has for it."""
