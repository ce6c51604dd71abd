"""A quick start of the program: what a training does not need is not imported."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_NAME = "torch._dynamo"


class _Standin(ModuleType):
    """Stands for ``torch._dynamo`` until somebody needs more of it than its two no-operations.

    Every optimizer asks for these two, and importing the whole compiler for them takes 0.7 s (torch 2.14). Any other
    attribute, and so ``torch.compile``, brings the real module, and what was prepared without it is prepared anew.
    """

    def __init__(self) -> None:
        super().__init__(_NAME, "A stand-in, see relume.cli.startup.")
        self._prepared: list[Any] = []

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Nothing is being compiled, so there is no graph to break."""

    def disable(self, function: Any = None, *_: Any, **__: Any) -> Any:
        """Nothing is being compiled, so there is nothing to keep out of it."""
        if function is None:
            return self.disable
        self._prepared.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def _real(self) -> ModuleType:
        if sys.modules.get(_NAME) is self:
            del sys.modules[_NAME]
            for function in self._prepared:
                vars(function).pop("__dynamo_disable", None)
        return importlib.import_module(_NAME)


def without_compiler() -> None:
    """Let optimizers work without importing torch's compiler. Does nothing when it is imported already."""
    import torch

    if _NAME not in sys.modules:
        sys.modules[_NAME] = torch._dynamo = _Standin()
