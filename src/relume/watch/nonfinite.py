"""Where NaN or infinity came from first."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from relume import tree
from relume.monitor.values import widest
from relume.names import named_parameters
from relume.run.run import Run
from relume.watch import statistics
from relume.watch.calls import CallWatcher, modules_of
from relume.watch.steps import labels

_REMEMBERED_STEPS = 64
_MOST_CALLS = 20_000


@dataclass
class _Seen:
    """Sums of what went through the modules in one step: NaN or infinite where something was.

    Attributes:
        calls: in the order in which they ended: the module's name, and whether it had an input with numbers.
        sums: of its input, if it had one, and of its output.
        passed: in the order of the backward pass, the names of the modules whose output got a gradient.
        gradients: the sums of these.
        weights: norms of the parameters before the step's update, by :attr:`NonFinite.names`.
    """

    step: int
    calls: list[tuple[str, bool]] = field(default_factory=list)
    sums: list[torch.Tensor] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)
    weights: torch.Tensor | None = None

    def pack(self) -> None:
        """One tensor in the place of many small ones, which take more room on a device."""
        for sums in (self.sums, self.gradients):
            if len(sums) > 1:
                first = sums[0].device
                sums[:] = [torch.cat([s.reshape(-1).to(first, widest(s)) for s in sums])]

    def read(self) -> tuple[list[float], list[float]]:
        """The sums and those of gradients as numbers. Waits for the device."""
        self.pack()
        return _numbers(self.sums), _numbers(self.gradients)


def _numbers(sums: list[torch.Tensor]) -> list[float]:
    return sums[0].reshape(-1).tolist() if sums else []


class NonFinite(CallWatcher):
    """Names the module whose output was not finite first, when the loss is NaN or infinite.

    It says whether the module's input or its weights were so already, and if all outputs were finite, that the loss function
    made it. Where a gradient was the first, it names the module whose output got it. The Trainer's
    :class:`relume.NonFiniteLossError` tells it; a loop of one's own finds it noted on the console and in the journal as soon
    as it logs a number that is not finite.

    Args:
        backward: gradients, too. With a GradScaler only forward passes are judged, as gradients that overflow are usual there,
            and skipped.

    Each call of a module in training is summed up on its device; nothing waits for it. Costs a pass over each output, and
    over its gradient; see bench/watch.py. What ``torch.compile`` runs is not seen.

    Raises:
        ConfigurationError: it watches another run already.
    """

    sees_each = True

    def __init__(self, *, backward: bool = True) -> None:
        self.backward = backward
        super().__init__()

    def is_wanted(self, step: int) -> bool:
        return False

    def begin(self, run: Run) -> None:
        self._done: deque[_Seen] = deque(maxlen=_REMEMBERED_STEPS)
        self._seen = _Seen(run.cursor.step + 1)
        self._last: tuple[weakref.ref[torch.Tensor], torch.Tensor] | None = None
        self._calls.disarm()
        self._calls.choose({})
        run.observe(self._look)

    def bound(self, run: Run) -> None:
        label = labels(run.models)
        self.names: list[str] = []
        self._weights: list[nn.Parameter] = []
        for name, parameter in named_parameters(run.models):
            model, _, path = name.partition(".")
            if statistics.values_of(parameter) is not None:
                self.names.append(label(model, path))
                self._weights.append(parameter)
        modules = modules_of(run.models)
        self._calls.choose({name: pair for name, pair in modules.items() if not isinstance(pair[0], nn.Sequential)})
        self._note_weights()
        self._calls.arm()

    def _note_weights(self) -> None:
        with torch.no_grad():
            found = statistics.norms([p if p.dtype.itemsize >= 4 else p.float() for p in self._weights])
            if found:
                first = found[0].device
                self._seen.weights = torch.stack([norm.to(first) for norm in found])

    def each(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        assert self._run is not None
        done, self._seen = self._seen, _Seen(self._run.cursor.step + 1)
        self._last = None
        if done.calls:
            done.pack()
            self._done.append(done)
        self._note_weights()

    def end(self, run: Run) -> None:
        self._calls.disarm()
        self._done.clear()
        self._seen = _Seen(0)
        self._last = None
        self._weights = []

    # ------------------------------------------------------------------------------------------------------ what is seen

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        # Hot path: some microseconds a module, and one or two passes over what it gives.
        self._guarded(lambda: self._note(name, inputs, output))

    def _note(self, name: str, inputs: Any, output: Any) -> None:
        seen = self._seen
        if len(seen.calls) >= _MOST_CALLS:
            return
        before, self._last = self._last, None
        given = [t for t in tree.tensors(output) if t.is_floating_point() and t.numel()]
        if not given:
            return
        entering, total = self._of_input(inputs, before), _sum(given)
        seen.calls.append((name, entering is not None))
        seen.sums += [total] if entering is None else [entering, total]
        if len(given) == 1:
            self._last = (weakref.ref(given[0]), total)
        if self.backward and self._run is not None and self._run.scaler is None:
            for tensor in given:
                if tensor.grad_fn is not None:  # on a parameter that a module gives back, a hook would stay
                    tensor.register_hook(_Gradient(name, seen))  # type: ignore[no-untyped-call]

    def _of_input(
        self, inputs: Any, before: tuple[weakref.ref[torch.Tensor], torch.Tensor] | None
    ) -> torch.Tensor | None:
        found = [t for t in tree.tensors(inputs) if t.is_floating_point() and t.numel()]
        if len(found) == 1 and before is not None and before[0]() is found[0]:
            return before[1]  # what the module before gave, and before it was changed in place
        return _sum(found) if found else None

    # --------------------------------------------------------------------------------------------------- what is found

    def _look(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Something that is not finite was logged: say where it came from, once."""
        run = self._run
        if run is None or all(value - value == 0 for value in values.values()) or "told" in self._said:
            return
        is_loss = any("loss" in name and value - value != 0 for name, value in values.items())
        try:
            found = self.why_not_finite(run) if is_loss else self._origin()
        except Exception as error:
            self.fail(error)
            return
        if found is not None and self.is_first("told"):
            run.note(f"not finite: {found}")

    def _origin(self) -> str | None:
        """Look through the last steps, oldest first. Waits for the device."""
        return next((found for seen in (*self._done, self._seen) if (found := self._first_of(seen)) is not None), None)

    def why_not_finite(self, run: Run) -> str | None:
        if self._run is None:
            return None
        found = self._origin()
        if found is not None:
            return found
        if self._seen.calls:
            return "The outputs of all modules were finite: the loss function made it (look for log(0), division by 0, sqrt(0))."
        return "No call of a module was seen (torch.compile hides them), so it is not known which one made it first."

    def _first_of(self, seen: _Seen) -> str | None:
        sums, gradients = seen.read()
        weights = [] if seen.weights is None else seen.weights.tolist()
        bad = [name for name, norm in zip(self.names, weights, strict=False) if not math.isfinite(norm)]
        at = 0
        for number, (name, has_input) in enumerate(seen.calls):
            before = sums[at] if has_input else 0.0
            after = sums[at + has_input]
            at += 1 + has_input
            if not math.isfinite(after):
                own = [key.rpartition(".")[2] for key in bad if key.rpartition(".")[0] == name]
                return _said(seen.step, name, not math.isfinite(before), own, is_first=number == 0)
        for name, gradient in zip(seen.passed, gradients, strict=False):
            if not math.isfinite(gradient):
                return (
                    f"At step {seen.step} all outputs were finite, and the gradient of the output of {_called(name)} was the "
                    "first in the backward pass that was not: look at what comes behind it (sqrt, norm or division at 0, log)."
                )
        if bad:
            return f"The parameter {bad[0]} was not finite before step {seen.step}: the update before it made it so."
        return None


def _said(step: int, name: str, was_so: bool, own: list[str], *, is_first: bool) -> str:
    weights = f"its {' and '.join(own)} had NaN or infinity" if own else "its weights were finite"
    if was_so:
        batch = " (the batch itself)" if is_first else " (made between the modules)"
        return f"At step {step}, what {_called(name)} was given was the first that was not finite{batch}; {weights}."
    return f"At step {step}, the output of {_called(name)} was the first that was not finite: its input was finite, {weights}."


class _Gradient:
    """Sums up the gradient of an output."""

    def __init__(self, name: str, seen: _Seen) -> None:
        self._name, self._seen = name, seen

    def __call__(self, gradient: torch.Tensor) -> None:
        seen = self._seen
        if len(seen.passed) < _MOST_CALLS and not torch.compiler.is_compiling():
            with torch.no_grad():
                seen.gradients.append(_sum([gradient]))
            seen.passed.append(self._name)


def _called(name: str) -> str:
    return name or "the model itself"


def _sum(tensors: list[torch.Tensor]) -> torch.Tensor:
    """A sum that is finite where all are: in a format that holds it."""
    sums = [t.detach().sum(dtype=torch.float32 if t.dtype.itemsize < 4 else None) for t in tensors]
    return sums[0] if len(sums) == 1 else torch.stack([s.to(sums[0].device, sums[0].dtype) for s in sums]).sum()
