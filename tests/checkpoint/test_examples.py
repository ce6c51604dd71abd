from __future__ import annotations

import doctest
import importlib
import pathlib
import pkgutil

import pytest
import torch

import relume.checkpoint
from relume.checkpoint import Candidate, Store, Writer

MODULES = [module.name for module in pkgutil.iter_modules(relume.checkpoint.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_run(name: str, tmp_path: pathlib.Path) -> None:
    module = importlib.import_module(f"relume.checkpoint.{name}")
    names = {"torch": torch, "tmp_path": tmp_path, "Store": Store, "Writer": Writer, "Candidate": Candidate}
    assert doctest.testmod(module, extraglobs=names).failed == 0


def test_every_public_name_has_a_docstring() -> None:
    for name in relume.checkpoint.__all__:
        assert getattr(relume.checkpoint, name).__doc__
