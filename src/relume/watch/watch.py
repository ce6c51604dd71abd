"""Watch: weights, gradients and activations, as histograms and norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from relume import tree
from relume.errors import ConfigurationError
from relume.names import named_parameters
from relume.run.run import Run
from relume.watch import statistics
from relume.watch.calls import CallWatcher, leaves, matching, modules_of, read_patterns
from relume.watch.steps import is_due, labels, read_interval


@dataclass
class _Gathered:
    """What one update has shown so far: tensors on their way, and how each becomes numbers in a line."""

    tensors: list[torch.Tensor] = field(default_factory=list)
    readers: list[Callable[[list[float], dict[str, float], dict[str, Any]], None]] = field(default_factory=list)

    def norm(self, name: str, value: torch.Tensor, scale: float = 1.0) -> None:
        self.tensors.append(value)

        def read(numbers: list[float], values: dict[str, float], media: dict[str, Any]) -> None:
            values[name] = numbers[0] * scale

        self.readers.append(read)

    def histogram(self, name: str, tensor: torch.Tensor, bins: int) -> None:
        self.tensors.append(statistics.histogram(tensor, bins))
        size = tensor.numel()

        def read(numbers: list[float], values: dict[str, float], media: dict[str, Any]) -> None:
            media[name] = statistics.content(numbers, size)

        self.readers.append(read)


class Watch(CallWatcher):
    """Weights, gradients and activations of a training, as histograms and norms.

    Args:
        parameters, gradients: ``True`` for those of all parameters that are trained, ``False`` for none, or names and
            patterns of parameters and modules (``fnmatch`` style, such as ``"features.*"``).
        activations: what modules give, by their names and patterns; ``True`` for all modules without others in them.
        every: the interval, in steps. The first step is watched, too.
        histograms, norms: which of the two.
        frozen: frozen parameters, too.
        bins: of each histogram; of equal width, from the smallest to the largest finite value.

    Logged are the histograms ``weights/<parameter>``, ``gradients/<parameter>`` and ``activations/<module>``, the Euclidean
    norms ``weight_norms/…``, ``gradient_norms/…`` and ``activation_norms/…`` (that of a sample, as the root of the mean
    square over the batch), and ``gradient_norm`` of all watched gradients of an optimizer together, with its name behind a
    slash where there are several. With several models the names begin with the model's.

    Gradients are those that the optimizer gets: summed over accumulated batches, unscaled where there is a GradScaler, and
    clipped; with the Trainer's ``clip_norm``, ``gradient_norm_before_clipping`` is that from before. Weights are those after
    the update. An update that a GradScaler skips is no step. Activations are those of the last call in training before the
    update.

    Everything is computed on the device, at steps that are due only, and nothing waits for it. The training is the same with
    and without: no number, no random number and no module is touched. Modules inside of what ``torch.compile`` runs, and the
    frozen part of the model where its features are cached, give no activations: that is said once. Gradients and weights are
    there as ever.

    Raises:
        ConfigurationError: an argument that makes no sense.
        NoMatchError: a pattern that matches nothing, when the run begins; names the closest.

    Example:
        >>> watch = Watch(activations="features.*", every="500 steps", histograms=False)
    """

    def __init__(
        self,
        parameters: bool | str | tuple[str, ...] | list[str] = True,
        gradients: bool | str | tuple[str, ...] | list[str] = True,
        activations: bool | str | tuple[str, ...] | list[str] = (),
        *,
        every: str = "100 steps",
        histograms: bool = True,
        norms: bool = True,
        frozen: bool = False,
        bins: int = 32,
    ) -> None:
        self.parameters = read_patterns(parameters, "parameters")
        self.gradients = read_patterns(gradients, "gradients")
        self.activations = read_patterns(activations, "activations")
        self.every = read_interval(every)
        if isinstance(bins, bool) or not isinstance(bins, int) or not 1 <= bins <= 4096:
            raise ConfigurationError(f"bins must be a whole number from 1 to 4096, not {bins!r}.")
        if not (histograms or norms):
            raise ConfigurationError("Watch(histograms=False, norms=False) has nothing to log: leave one of them on.")
        if not (self.parameters or self.gradients or self.activations):
            raise ConfigurationError("Watch has nothing to watch: give parameters, gradients or activations.")
        self.histograms, self.norms, self.frozen, self.bins = histograms, norms, frozen, bins
        self.sees_each = bool(self.activations)
        super().__init__()

    # ------------------------------------------------------------------------------------------------ what is watched

    def begin(self, run: Run) -> None:
        self._calls.disarm()
        self._calls.choose({})
        self._outputs: dict[str, _Gathered] = {}
        self._seen: set[str] = set()
        self._gathered: dict[int, _Gathered] = {}
        self._has_looked = False

    def bound(self, run: Run) -> None:
        label = labels(run.models)
        self._named: dict[str, nn.Parameter] = {}
        for name, parameter in named_parameters(run.models):
            model, _, path = name.partition(".")
            self._named.setdefault(label(model, path), parameter)
        self._weight_names = self._chosen(self.parameters, "parameters")
        self._gradient_names = self._chosen(self.gradients, "gradients")
        if self.activations and run.models:
            modules = modules_of(run.models)
            if isinstance(self.activations, bool):
                self._calls.choose(leaves(modules))
            else:
                wanted = matching(self.activations, [name for name in modules if name], "activations")
                self._calls.choose({name: modules[name] for name in wanted})
        self._arm(run)

    def _chosen(self, given: bool | tuple[str, ...], what: str) -> set[str]:
        if given is False or not self._named:
            return set()
        if given is True:
            return set(self._named)
        return set(matching(given, self._named, what, below=True))

    def _arm(self, run: Run) -> None:
        """See what modules give where the next update of any optimizer is one that is due."""
        if any(is_due(run.next_step(optimizer), self.every) for optimizer in run.optimizers.values()):
            self._calls.arm()
        elif self._calls.is_armed:
            self._calls.disarm()
            self._outputs.clear()
            self._say_missing(run)

    def _of(self, optimizer: torch.optim.Optimizer, names: set[str], is_first: bool) -> dict[str, nn.Parameter]:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        return {
            name: p
            for name, p in self._named.items()
            if name in names
            and ((p.requires_grad and id(p) in held) or (self.frozen and is_first and not p.requires_grad))
        }

    def _is_first(self, optimizer: torch.optim.Optimizer) -> bool:
        return self._run is not None and next(iter(self._run.optimizers.values())) is optimizer

    # -------------------------------------------------------------------------------------------- the optimizers' moments

    def before(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        gathered = self._gathered[id(optimizer)] = _Gathered()
        found = {
            key: values
            for key, p in self._of(optimizer, self._gradient_names, False).items()
            if (values := statistics.values_of(p.grad)) is not None
        }
        if not found:
            return
        unscaled = _unscale(optimizer)
        norms = statistics.norms(list(found.values()))
        if self.norms:
            for key, norm in zip(found, norms, strict=True):
                gathered.norm(f"gradient_norms/{key}", unscaled(norm))
            assert self._run is not None
            tail = f"/{name}" if len(self._run.optimizers) > 1 else ""
            first = norms[0].device
            gathered.norm(
                f"gradient_norm{tail}", unscaled(torch.linalg.vector_norm(torch.stack([n.to(first) for n in norms])))
            )
            if self._run.norm_before_clipping is not None and self._is_first(optimizer):
                gathered.norm("gradient_norm_before_clipping", self._run.norm_before_clipping)
        if self.histograms:
            for key, values in found.items():
                gathered.histogram(f"gradients/{key}", unscaled(values), self.bins)

    def behind(self, name: str, optimizer: torch.optim.Optimizer, step: int) -> None:
        run = self._run
        gathered = self._gathered.pop(id(optimizer), None)
        if gathered is None or run is None:
            return
        found = {
            key: values
            for key, p in self._of(optimizer, self._weight_names, self._is_first(optimizer)).items()
            if (values := statistics.values_of(p)) is not None
        }
        if self.norms:
            for key, norm in zip(found, statistics.norms(list(found.values())), strict=True):
                gathered.norm(f"weight_norms/{key}", norm)
        if self.histograms:
            for key, values in found.items():
                gathered.histogram(f"weights/{key}", values, self.bins)
        self._take_outputs(gathered)
        self._put(run, step, gathered)

    def each(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        if self._run is not None:
            self._arm(self._run)

    def end(self, run: Run) -> None:
        self._calls.disarm()
        self._say_missing(run)
        self._outputs.clear()

    # ----------------------------------------------------------------------------------------------------- activations

    def _see(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        self._guarded(lambda: self._note(name, output))

    def _note(self, name: str, output: Any) -> None:
        first = next((v for t in tree.tensors(output) if (v := statistics.values_of(t)) is not None), None)
        if first is None:
            return
        gathered = _Gathered()
        if self.norms:
            samples = first.shape[0] if first.dim() else 1
            gathered.norm(f"activation_norms/{name}", torch.linalg.vector_norm(first), max(samples, 1) ** -0.5)
        if self.histograms:
            gathered.histogram(f"activations/{name}", first, self.bins)
        self._outputs[name] = gathered
        self._seen.add(name)

    def _take_outputs(self, into: _Gathered) -> None:
        for gathered in self._outputs.values():
            into.tensors += gathered.tensors
            into.readers += gathered.readers
        self._outputs = {}
        self._has_looked = True

    def _say_missing(self, run: Run) -> None:
        missing = [name for name in self._calls.names if name not in self._seen]
        if missing and self._has_looked and self.is_first("missing"):
            shown = ", ".join(name or "the model itself" for name in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            run.note(
                f"watch: no activations of {shown}{more}: not called in training, or called by compiled code (torch.compile), "
                "or their part of the model is cached as features"
            )

    def _put(self, run: Run, step: int, gathered: _Gathered) -> None:
        if not gathered.tensors:
            return
        moment = run.moment(step)
        sizes = [tensor.numel() for tensor in gathered.tensors]

        def write(numbers: list[float]) -> None:
            values: dict[str, float] = {}
            media: dict[str, Any] = {}
            start = 0
            for size, read in zip(sizes, gathered.readers, strict=True):
                read(numbers[start : start + size], values, media)
                start += size
            gathered.tensors.clear()
            if values:
                run.journal.write({**moment, "values": values})
            if media:
                run.journal.write({**moment, "media": media})

        self.later.put(gathered.tensors, write)


def _unscale(optimizer: torch.optim.Optimizer) -> Callable[[torch.Tensor], torch.Tensor]:
    """A fused optimizer is given gradients that are scaled still, and divides them itself."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return lambda tensor: tensor
    return lambda tensor: tensor / scale.to(tensor.device)
