"""The cut before a head, for models that cannot be traced: everything that runs before the last module of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from relume.transfer.features.constant import Constancy, NoCut, follows_mode, said
from relume.transfer.features.random import drawing

if TYPE_CHECKING:
    from relume.transfer.features.cut import Cut


def cut_before_head(constancy: Constancy, inputs: tuple[Any, ...], named: Mapping[str, Any], why: str) -> Cut:
    """Cut before the one module that is not constant, if it is called once, last of all, and gives the model's output.

    Raises:
        NoCut: it is otherwise; says how, and ``why`` the model was not traced.
    """
    from relume.transfer.features.cut import Cut, tensors_in

    path, head = _only_changing_part(constancy, why)
    found: list[tuple[Any, Any]] = []
    drawn_before: list[bool] = []
    with drawing() as is_drawn:

        def enter(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            drawn_before.append(is_drawn())
            found.append((arguments if not named else None, None))

        def leave(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            found[-1] = (found[-1][0], output)

        handles = (head.register_forward_pre_hook(enter, with_kwargs=True), head.register_forward_hook(leave))
        try:
            with torch.no_grad():
                output = constancy.model(*inputs, **named)
        finally:
            for handle in handles:
                handle.remove()
    if len(found) != 1:
        raise NoCut(f"{why}; and {said(path, head)} is called {len(found)} times")
    taken, given = found[0]
    if taken is None or len(taken) != 1 or not isinstance(taken[0], torch.Tensor):
        raise NoCut(f"{why}; and {said(path, head)} takes more than one tensor")
    if given is not output:
        raise NoCut(f"{why}; and what {said(path, head)} gives is not the model's output")
    if drawn_before[0]:
        raise NoCut(f"{why}; and random numbers are drawn before {said(path, head)}")
    lower = UpTo(constancy.model, head)
    own = {id(tensor) for _, tensor in tensors_in(head)}
    tensors = tuple((name, tensor) for name, tensor in tensors_in(constancy.model) if id(tensor) not in own)
    return Cut(lower, Behind(head), f"what goes into {said(path, head)}", "the head", f"up to {path}", tensors)


def _only_changing_part(constancy: Constancy, why: str) -> tuple[str, nn.Module]:
    """The module outside of which everything is constant, as small as can be."""
    path, module = "", constancy.model
    while True:
        own = [name for name, p in module.named_parameters(recurse=False) if constancy.may_change(p)]
        changing = [
            (f"{path}.{name}" if path else name, child)
            for name, child in module.named_children()
            if constancy.reason(child, f"{path}.{name}" if path else name) is not None
        ]
        if own or len(changing) != 1 or (path and module.training and follows_mode(module)):
            break
        path, module = changing[0]
    if not path:
        names = ", ".join(name for name, _ in changing[:3]) or own[0]
        raise NoCut(f"{why}; and more than one part of it is not constant ({names})")
    return path, module


class _Reached(Exception):  # noqa: N818 - not an error
    """The forward pass has come to the head."""


class UpTo(nn.Module):
    """A model up to what goes into its head. Its parameters are not registered twice: the model is not a submodule."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.parts = [model, head]

    def forward(self, *inputs: Any, **named: Any) -> tuple[torch.Tensor]:
        model, head = self.parts
        reached: list[torch.Tensor] = []

        def stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            reached.append(arguments[0])
            raise _Reached

        handle = head.register_forward_pre_hook(stop)
        try:
            model(*inputs, **named)
        except _Reached:
            return (reached[0],)
        finally:
            handle.remove()
        raise NoCut("the forward pass did not come to the head")


class Behind(nn.Module):
    """The head, called with its feature."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, feature_0: torch.Tensor) -> Any:
        return self.head(feature_0)
