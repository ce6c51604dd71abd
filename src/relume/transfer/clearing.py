"""Are the gradients cleared between two steps?"""

from __future__ import annotations

import weakref

import torch

from relume.transfer.findings import Problem


class Clearing:
    """Tells whether gradients are cleared between two steps, by one parameter: is there a gradient when the next arrives?"""

    def __init__(self, parameter: torch.Tensor) -> None:
        self._reference = weakref.ref(parameter)
        self._arrivals = 0
        self._was_cleared = False

        def arrived(gradient: torch.Tensor) -> None:
            p = self._reference()
            self._arrivals += 1
            if p is None or p.grad is None or (self._arrivals == 1 and not bool(p.grad.any())):
                self._was_cleared = True

        arrived.__torch_unserializable__ = True  # type: ignore[attr-defined]  # says nothing when the parameter is pickled
        self._handle = parameter.register_hook(arrived)  # type: ignore[no-untyped-call]

    def judged(self, name: str) -> list[Problem]:
        self.close()
        if not self._arrivals or self._was_cleared:
            return []
        return [
            Problem(
                "not cleared",
                "warning",
                f"the gradients of {name} are not cleared between its steps, so each step uses the sum of all gradients so far: "
                "call optimizer.zero_grad() after each step.",
                (name,),
            )
        ]

    def close(self) -> None:
        self._handle.remove()
