"""Units that no longer fire."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from relume import tree
from relume.errors import ConfigurationError
from relume.run.run import Run
from relume.watch.calls import CallWatcher, matching, modules_of, read_patterns
from relume.watch.steps import read_interval

_RELUS = (nn.ReLU, nn.ReLU6, nn.Threshold)


class DeadUnits(CallWatcher):
    """The share of units of each ReLU that are zero for every sample of some steps.

    Args:
        layers: names and patterns of modules (``fnmatch`` style); ``True`` for all ``nn.ReLU``, ``nn.ReLU6`` and
            ``nn.Threshold``.
        every: how often it is told, in steps.
        over: for how many steps before that the units are watched, at most ``every``.
        share: a layer with at least this share of dead units is warned of, once.

    Logged is ``dead_units/<module>``, from 0 to 1. A unit is a channel of pictures ``(N, C, H, W)`` and the like, a feature
    of ``(N, F)`` or ``(N, T, F)``; in a model with ``nn.Conv1d``, a channel of ``(N, C, L)``. It is dead where it was zero at
    each place of each sample. Where one module is called several times, calls with as many units count together, and others
    beside them. ReLUs that are called as functions (``torch.relu``) are no modules and are not seen; name the
    layers that hold them, if these end with one. Steps before a resume do not count: an interval in whose midst a run was
    resumed is left out.

    Source: Maas, Hannun and Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic Models", ICML 2013.

    Raises:
        ConfigurationError: an argument that makes no sense.
        NoMatchError: a pattern that matches nothing, when the run begins.
    """

    sees_each = True

    def __init__(
        self,
        layers: bool | str | tuple[str, ...] | list[str] = True,
        *,
        every: str = "100 steps",
        over: str = "10 steps",
        share: float = 0.5,
    ) -> None:
        self.layers = read_patterns(layers, "layers")
        if self.layers is False:
            raise ConfigurationError("DeadUnits has no layers to watch: give names or patterns, or layers=True.")
        self.every = read_interval(every)
        self.over = min(read_interval(over, "over"), self.every)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ConfigurationError(f"share must be above 0 and at most 1, not {share!r}.")
        self.share = float(share)
        super().__init__()

    def is_wanted(self, step: int) -> bool:
        return step % self.every == 0

    def begin(self, run: Run) -> None:
        self._calls.disarm()
        self._calls.choose({})
        self._forget()

    def _forget(self) -> None:
        self._fired: dict[tuple[str, int], torch.Tensor] = {}  # by module and number of units
        self._samples: dict[tuple[str, int], int] = {}
        self._is_whole = False

    def bound(self, run: Run) -> None:
        if not run.models:
            return
        modules = modules_of(run.models)
        if self.layers is True:
            chosen = {name: pair for name, pair in modules.items() if isinstance(pair[0], _RELUS)}
            if not chosen and self.is_first("none"):
                run.note(
                    "dead units: the model has no nn.ReLU: ReLUs that are called as functions are not seen. "
                    "relume.DeadUnits(layers=[...]) names layers that end with one."
                )
        else:
            wanted = matching(self.layers or (), [name for name in modules if name], "layers")
            chosen = {name: modules[name] for name in wanted}
        self._calls.choose(chosen)
        self._has_rows = any(isinstance(module, nn.Conv1d) for module, _ in modules.values())
        self._arm(run)

    def _arm(self, run: Run) -> None:
        """See what modules give within the last steps of an interval."""
        steps = [run.next_step(optimizer) for optimizer in run.optimizers.values()]
        if any(self._is_within(step) for step in steps):
            if not self._calls.is_armed:
                self._is_whole = any((step - 1) % self.every == self.every - self.over for step in steps)
                self._calls.arm()
        elif self._calls.is_armed:
            self._calls.disarm()
            self._forget()

    def _is_within(self, step: int) -> bool:
        return (step - 1) % self.every >= self.every - self.over

    def each(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        if self._run is not None:
            self._arm(self._run)

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._guarded(lambda: self._note(name, output))

    def _note(self, name: str, output: Any) -> None:
        given = next(iter(tree.tensors(output)), None)
        if given is None or given.dim() < 2 or not given.numel():
            return
        axis = given.dim() - 1 if given.dim() == 3 and not self._has_rows else 1
        others = [a for a in range(given.dim()) if a != axis]
        fired = given.detach().abs().amax(others) != 0
        key = name, fired.numel()
        before = self._fired.get(key)
        is_same = before is not None and before.device == fired.device
        self._fired[key] = before.logical_or_(fired) if is_same and before is not None else fired
        self._samples[key] = (self._samples.get(key, 0) if is_same else 0) + given.shape[0]

    def behind(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        fired, samples, is_whole, run = self._fired, self._samples, self._is_whole, self._run
        self._forget()
        self._is_whole = self.over == self.every  # the next interval begins here
        if not fired or not is_whole or run is None:
            return
        moment = run.moment(step)
        keys = list(fired)
        sizes: dict[str, int] = {}
        for layer, units in keys:
            sizes[layer] = sizes.get(layer, 0) + units

        def write(numbers: list[float]) -> None:
            dead = dict.fromkeys(sizes, 0.0)
            for (layer, _), count in zip(keys, numbers, strict=True):
                dead[layer] += count
            seen = {layer: max(count for (name, _), count in samples.items() if name == layer) for layer in sizes}
            values = {f"dead_units/{layer}": count / sizes[layer] for layer, count in dead.items()}
            run.journal.write({**moment, "values": values})
            for layer, count in dead.items():
                if count / sizes[layer] >= self.share and self.is_first(layer):
                    self.warn(
                        f"dead units in {layer or 'the model'}: {count:.0f} of {sizes[layer]} were zero for all "
                        f"{seen[layer]:,} samples up to step {step}. They get no gradient and do not come back: try a smaller "
                        "learning rate, LeakyReLU or GELU, or a norm layer in front."
                    )

        self.later.put([units.logical_not().sum() for units in fired.values()], write)

    def end(self, run: Run) -> None:
        self._calls.disarm()
        self._forget()
