"""The feature cache of one loader: planned, proven, built or found again, and checked as epochs go by."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume import tree
from relume.checkpoint.hashing import hash_bytes
from relume.names import unwrap
from relume.seeds import derive
from relume.transfer.features.build import Built, build, open_tables, rows_agree
from relume.transfer.features.constant import NoCut
from relume.transfer.features.cost import Estimate, NoGain
from relume.transfer.features.cut import Cut, find_cut, tensors_of
from relume.transfer.features.intercept import UpTo
from relume.transfer.features.kept import FeatureFolder
from relume.transfer.features.key import NoFingerprint, fingerprint_of
from relume.transfer.features.plans import identity, marks, moment, plans
from relume.transfer.features.random import apart
from relume.transfer.features.rows import agree
from relume.transfer.features.samples import Samples
from relume.transfer.features.setting import Setting
from relume.transfer.features.table import FeatureTable, inputs_of

FORMAT = 2
_CHECK_SECONDS = 5.0
_CHECKED = 1  # samples that are computed anew at the start of an epoch
LIVE_TOLERANCE = 1e-5


@dataclass
class FeatureCache:
    """The features of one loader's samples.

    Attributes:
        cut: the model in two parts.
        table: the features.
        samples, setting: what they were computed from, and how.
        text: one line that says what is cached, where, and what it cost.
        notes: what else there is to say, such as why they are not shared with other processes.
        is_exact: whether the two parts together gave the bits that the whole model gives.
    """

    cut: Cut
    table: FeatureTable
    samples: Samples
    setting: Setting
    text: str
    notes: list[str]
    is_exact: bool
    marks: list[Any]
    weights: str
    settings: list[Any]
    checks: int = 0
    checked_seconds: float = field(default_factory=time.monotonic)

    def problem(self) -> str | None:
        """What changed since, in words, or ``None``: asked at the start of each epoch.

        Cost: that of one sample; or, where one was computed a few seconds ago and nothing else looks different, that of
        hashing the frozen part on the CPU (575 MB: 66 ms); on a device it is hashed only where somebody wrote to it.
        """
        now, settings, seconds = marks_of(self.cut), settings_of(self.cut), time.monotonic()
        is_recent = seconds - self.checked_seconds < _CHECK_SECONDS and settings == self.settings
        self.settings = settings
        if now != self.marks or (is_recent and self.setting.device.type == "cpu"):
            if weights_of(self.cut) != self.weights:
                return "the frozen part has changed"
            self.marks = now
        if not self.cut.is_current():
            return "the forward pass is another one now"
        if self.samples.has_changed():
            return "the data has changed"
        if is_recent:
            return None
        self.checked_seconds = seconds
        self.checks += 1
        key = derive(0, "features", self.checks)
        indices = [derive(key, number) % self.samples.count for number in range(_CHECKED)]
        view = self.checks % self.table.views
        if not rows_agree(self.cut, self.table, self.samples, self.setting, indices, view):
            return f"sample {indices[0]}, computed anew, is not what it was"
        return None


def cache_for(
    model: nn.Module,
    loader: Any,
    setting: Setting,
    *,
    epochs: int,
    root: Path | None = None,
    insist: bool = False,
    views: int | None = None,
    seed: int = 0,
    trainable: Collection[int] = (),
    after: str | None = None,
) -> FeatureCache:
    """Compute, or find again, what of a model is a function of each sample of ``loader``, in the modes it has now.

    Args:
        epochs: how often the samples will be read.
        root: where tables are kept for other runs.
        insist: whatever the cost.
        trainable: ids of frozen parameters that may be trained all the same.
        after: the name of a module to cut behind.

    Raises:
        NoCut, NotEligible: why that is not possible, or not worth it.
    """
    inner = unwrap(model)
    if inner is not model and type(model).__name__ != "OptimizedModule":
        raise NoCut(f"the model is wrapped in {type(model).__name__}")
    samples = Samples(loader, views=views, seed=seed)
    folder = None if root is None else FeatureFolder(root)
    if epochs < 2 and not insist and not (folder is not None and folder.folder.is_dir()):
        raise NoGain("one epoch is left, and there are no features from before")
    three = [0, samples.count // 2, samples.count - 1]
    inputs, named, _, _ = inputs_of(samples.some(three))
    inputs, named = tree.move(inputs, setting.device), tree.move(named, setting.device)
    with setting.autocast():
        cut = find_cut(inner, inputs, named, trainable=trainable, after=after)
        is_exact = plans.once(lambda: _plan(cut), lambda: verify(inner, cut, inputs, named))
    weights = weights_of(cut)
    notes = []
    key: str | None = None
    try:
        key = key_of(cut, weights, samples, setting)
    except NoFingerprint as reason:
        notes.append(f"features are not shared with other processes: {reason}")
    estimate = Estimate(epochs, samples.count, samples.views or 1, insist)
    built = _found(key, folder, cut, samples, setting)
    if built is None:
        samples.prove()
        built = build(cut, samples, setting, key, folder, estimate)
    if built.note:
        notes.append(built.note)
    return FeatureCache(
        cut,
        built.table,
        samples,
        setting,
        _text(cut, built, estimate, samples, setting),
        notes,
        is_exact,
        marks_of(cut),
        weights,
        settings_of(cut),
    )


def _found(key: str | None, folder: FeatureFolder | None, cut: Cut, samples: Samples, setting: Setting) -> Built | None:
    if key is None:
        return None
    table, how = open_tables.get(key), "kept from before"
    if table is None and folder is not None:
        table, how = folder.find(key), "found on the disk"
    found = table
    if found is None or not plans.once(
        lambda: ("agrees", key, id(found)), lambda: rows_agree(cut, found, samples, setting, [0, samples.count - 1])
    ):
        return None
    open_tables[key] = found
    return Built(found, how, 0.0)


def _plan(cut: Cut) -> Hashable:
    """The same for models that are traced alike and have the same lower part."""
    if cut.trace is None:
        return object()  # what is called cannot be told
    modules = tuple((name, identity(child)) for name, child in cut.lower.named_children())
    return cut.traced, cut.code, modules, tuple(marks(t) for _, t in cut.tensors), cut.upper.training


def _text(cut: Cut, built: Built, estimate: Estimate, samples: Samples, setting: Setting) -> str:
    views = "" if samples.views is None else f", {samples.views} views of each (epoch e reads view e % {samples.views})"
    half = "" if setting.dtype is None else f", stored in {str(setting.dtype).removeprefix('torch.')}"
    each = f"{built.table.bytes_a_sample:,} bytes a sample{half}{views}"
    if not built.seconds:
        time = f"{built.how}, nothing is computed"
    else:
        epochs = "the epoch that is left" if estimate.epochs == 1 else f"{estimate.epochs} epochs"
        each_epoch = f"instead of about {estimate.pass_seconds:.1f} s in each of {epochs}"
        time = f"{built.how}, computed in {built.seconds:.1f} s {each_epoch}"
    return f"cached after {cut.after}: {samples.count:,} samples, {each}, {time}"


def key_of(cut: Cut, weights: str, samples: Samples, setting: Setting) -> str:
    """The name of a table: a function of everything that its bits depend on.

    Raises:
        NoFingerprint: the dataset holds something whose content is not known.
    """
    kept = repr(samples.stamp)
    dataset = plans.once(lambda: ("data", id(samples.dataset), kept), lambda: fingerprint_of(samples.dataset))
    data = [dataset, samples.count, samples.chunk, samples.views, samples.seed if samples.views else 0]
    if isinstance(cut.lower, UpTo):
        model, head = cut.lower.parts
        parts = [_settings(model, head)]
    else:
        parts = [_settings(child) for child in cut.lower.children()]
    return fingerprint_of(FORMAT, cut.code, weights, parts, data, setting.marks())


def _settings(module: nn.Module, without: nn.Module | None = None) -> Any:
    """The classes of a module and all within it, and what they were made with; tensors are hashed apart."""
    values = {k: v for k, v in vars(module).items() if k not in _OTHERWISE and isinstance(v, _PLAIN)}
    inner = [(name, _settings(child, without)) for name, child in module.named_children() if child is not without]
    return type(module), repr(sorted(values.items())), inner


_OTHERWISE = frozenset({"training", "_parameters", "_buffers", "_modules"})
_PLAIN = (bool, int, float, str, tuple, type(None))


def weights_of(cut: Cut) -> str:
    """The hash of all parameters and buffers of the lower part."""
    return moment.once(lambda: tuple((name, marks(t)) for name, t in cut.tensors), lambda: hash_of(cut.tensors))


def hash_of(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The hash of tensors by name: their dtypes, shapes and bytes."""
    hashes = []
    for name, tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().data if flat.numel() else b""
        hashes.append(f"{name} {tensor.dtype} {tuple(tensor.shape)} {hash_bytes(data)}")
    return hash_bytes("\n".join(hashes).encode())


def settings_of(cut: Cut) -> list[Any]:
    """Numbers, flags and texts that the modules of the lower part hold."""
    return [
        (path, name, repr(value))
        for path, module in cut.lower.named_modules()
        for name, value in vars(module).items()
        if name != "training" and isinstance(value, (int, float, str))
    ]


def marks_of(cut: Cut) -> list[Any]:
    """What changes when anybody writes to a tensor of the lower part, or exchanges its memory: cheap."""
    return [(id(t), t._version, t.data_ptr()) for _, t in cut.tensors]


def verify(model: nn.Module, cut: Cut, inputs: tuple[Any, ...], named: Any) -> bool:
    """Whether the two parts give, for a batch, bit for bit what the model gives; nothing is changed.

    Raises:
        NoCut: they give something else, or the forward pass writes into the frozen part.
    """
    before = marks_of(cut)
    own = {id(tensor) for _, tensor in cut.tensors}
    moving = [(b, b.clone()) for b in model.buffers() if id(b) not in own]
    outputs = []
    with torch.no_grad():
        for is_cut in (False, True):
            try:
                with apart(1):
                    output = cut.upper(*cut.lower(*inputs, **named)) if is_cut else model(*inputs, **named)
                outputs.append(tensors_of(output))
            finally:
                _put_back(moving)
    if marks_of(cut) != before:
        raise NoCut("the forward pass writes to the frozen part")
    live, parts = outputs
    if len(live) != len(parts) or not live:
        raise NoCut("the model's output holds no tensors" if not live else "the part behind the cut gives another form")
    if all(torch.equal(one, other) for one, other in zip(live, parts, strict=True)):
        return True
    if all(agree(one, other, LIVE_TOLERANCE) for one, other in zip(live, parts, strict=True)):
        return False
    raise NoCut("the part behind the cut does not give what the model gives")


def _put_back(moving: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for buffer, value in moving:
        if not torch.equal(buffer, value):
            buffer.copy_(value)
