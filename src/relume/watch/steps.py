"""What watchers of a training's steps share: the optimizers' own hooks, intervals, and numbers that arrive later.

Hooks on optimizers serve every loop: gradients are there before an update, weights behind it. A watcher reads, and never
writes: neither the training nor its random numbers know of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from relume.errors import ConfigurationError, warn
from relume.monitor.values import Copy, widest
from relume.run.companions import Companion, warn_left_out
from relume.run.every import Every
from relume.run.run import Run
from relume.transfer.ledger import has_closure


def read_interval(every: Any, name: str = "every") -> int:
    """A number of steps, from words such as ``"100 steps"``.

    Raises:
        ConfigurationError: not understood, or not in steps.

    Example:
        >>> read_interval("100 steps")
        100
    """
    rule = Every.read(every) if isinstance(every, str) else None
    if rule is None or rule.steps is None:
        raise ConfigurationError(
            f'{name}={every!r}: a watcher counts steps, so that a resumed run has the same ones. Example: "100 steps".'
        )
    return rule.steps


def is_due(step: int, every: int) -> bool:
    """Whether ``step`` (counted from 1) is watched: the first one, and each multiple of ``every``."""
    return step == 1 or step % every == 0


class Later:
    """Numbers that a device still computes, and what is done with them when they are there, in order.

    Nothing waits for the device but :meth:`settle`: their copies are started, and looked for at the next steps.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[list[Copy], list[int], Callable[[list[float]], None]]] = deque()

    def put(self, tensors: Sequence[torch.Tensor], then: Callable[[list[float]], None]) -> None:
        """Call ``then`` with all numbers of ``tensors``, in order, once they are on the host.

        Those of one device travel together.
        """
        by_device: dict[torch.device, list[int]] = {}
        for number, tensor in enumerate(tensors):
            by_device.setdefault(tensor.device, []).append(number)
        copies = [
            Copy(torch.cat([tensors[n].detach().reshape(-1).to(widest(tensors[n])) for n in numbers]))
            for numbers in by_device.values()
        ]
        order = [n for numbers in by_device.values() for n in numbers]
        sizes = [tensors[n].numel() for n in order]
        if len(by_device) > 1:
            then = _in_order(then, order, sizes)
        self._waiting.append((copies, sizes, then))
        self.poll()

    def poll(self) -> None:
        """Handle what has arrived."""
        while self._waiting and all(copy.is_ready() for copy in self._waiting[0][0]):
            self._take()

    def settle(self) -> None:
        """Wait for all that is under way, and handle it."""
        while self._waiting:
            self._take()

    def _take(self) -> None:
        copies, _, then = self._waiting.popleft()
        then([number for copy in copies for number in copy.read()])


def _in_order(then: Callable[[list[float]], None], order: list[int], sizes: list[int]) -> Callable[[list[float]], None]:
    """``then`` with the numbers of several devices put back into the order in which they were given."""

    def sort(numbers: list[float]) -> None:
        parts, start = {}, 0
        for number, size in zip(order, sizes, strict=True):
            parts[number] = numbers[start : start + size]
            start += size
        then([value for number in sorted(parts) for value in parts[number]])

    return sort


class StepWatcher(Companion):
    """Base of what watches the steps of a run. Override what is needed; a failure in it is one warning, and it is left out."""

    every: int = 1
    sees_each = False
    """Whether :meth:`each` is called behind every update."""

    def begin(self, run: Run) -> None:
        """The run is open, and nothing was trained; everything of an earlier run is forgotten here."""

    def bound(self, run: Run) -> None:
        """Models and optimizers are known, or have become more."""

    def before(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        """An optimizer is about to make its update of a step that is due; the gradients are those it will use.

        One that is given a closure (LBFGS) has its gradients from there: this is called behind its update, and they are those
        of the closure's last call.
        """

    def behind(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        """An optimizer has made its update of a step that is due."""

    def each(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Any update was made (hot path)."""

    def end(self, run: Run) -> None:
        """The run ends; all numbers have arrived."""

    def is_wanted(self, step: int) -> bool:
        return is_due(step, self.every)

    # --------------------------------------------------------------------------------------------- a companion's moments

    _run: Run | None = None

    def open(self, run: Run) -> None:
        if self._run is not None and self._run is not run and self._run.status == "running":
            raise ConfigurationError(
                f"this {type(self).__name__} watches the run {self._run.name!r} already: give each run one of its own."
            )
        self._release()
        self._run = run
        self.later = Later()
        self._handles: list[Any] = []
        self._hooked: set[int] = set()
        self._now: dict[int, int] = {}
        self._said: set[str] = set()
        self.begin(run)
        self.added(run)

    def added(self, run: Run) -> None:
        if self._run is None:
            return
        for name, optimizer in run.optimizers.items():
            if id(optimizer) not in self._hooked:
                self._hooked.add(id(optimizer))
                self._handles.append(optimizer.register_step_pre_hook(self._before(name)))
                self._handles.append(optimizer.register_step_post_hook(self._behind(name)))
        self.bound(run)

    def settle(self, run: Run) -> None:
        self.later.settle()

    def close(self, run: Run) -> None:
        try:
            if self._run is not None:
                self.later.settle()
                self.end(run)
        finally:
            self._release()

    def _release(self) -> None:
        """Take the hooks away."""
        for handle in getattr(self, "_handles", []):
            handle.remove()
        self._handles = []

    # --------------------------------------------------------------------------------------------------- the two hooks

    def _before(self, name: str) -> Callable[..., None]:
        def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            # Hot path: a microsecond where the step is not due.
            run = self._run
            if run is None or run.is_replaying:
                return
            step = run.next_step(optimizer)
            if self.is_wanted(step) and not _is_out_of_order(optimizer):
                self._now[id(optimizer)] = step
                if not has_closure(args, kwargs):
                    self._guarded(lambda: self.before(name, optimizer, step))

        return before

    def _behind(self, name: str) -> Callable[..., None]:
        def behind(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            step = self._now.pop(id(optimizer), None)
            if self._run is None:
                return
            if step is not None:
                if has_closure(args, kwargs):
                    self._guarded(lambda: self.before(name, optimizer, step))
                self._guarded(lambda: self.behind(name, optimizer, step))
            if self.sees_each and self._run is not None and not self._run.is_replaying:
                self._guarded(lambda: self.each(name, optimizer))
            if self.later._waiting:
                self._guarded(self.later.poll)

        return behind

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            with torch.no_grad():
                action()
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Leave this watcher out from here on, with one warning: a training does not end by being watched."""
        if self._run is not None:
            self._run, self.later = None, Later()  # its hooks do nothing now; within one, they cannot be taken away
            warn_left_out(self, error)

    def failed(self) -> None:
        self._run, self.later = None, Later()
        self._release()

    def is_first(self, key: str) -> bool:
        """Whether ``key`` is asked for the first time: what was said once need not be said again."""
        if key in self._said:
            return False
        self._said.add(key)
        return True

    def warn(self, text: str) -> None:
        """A warning, which stands in the journal, too."""
        if self._run is not None:
            self._run.journal.write({"event": "note", "text": text, **self._run.moment()})
        warn(text)


def _is_out_of_order(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an update must not be looked at: one that a GradScaler skips, or one that is captured as a CUDA graph."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return True
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def labels(names: Iterable[str]) -> Callable[[str, str], str]:
    """How parts of models are called: by the model's name where there are several of them.

    Example:
        >>> labels(["model"])("model", "0.weight"), labels(["one", "two"])("two", "0.weight")
        ('0.weight', 'two.0.weight')
    """
    has_several = len(list(names)) > 1

    def label(model: str, part: str) -> str:
        return f"{model}.{part}" if has_several and part else model if has_several or not part else part

    return label
