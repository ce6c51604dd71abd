"""Weights into a model: from a file, from tensors by name, or from another model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from relume.checkpoint.tensors import as_bytes
from relume.errors import ConfigurationError, MismatchError, RelumeWarning
from relume.models.contents import ModelFile
from relume.models.filling import EXTRA, Copy, Plan, fill, names_of, own_tensors, plan
from relume.models.matching import Proposal, propose
from relume.models.prefixes import Prefixes, find_prefix
from relume.models.renames import Rename, chosen, is_meant, renamed
from relume.models.report import Difference, LoadReport, explain
from relume.names import canonical, canonical_in, is_uninitialized, unwrap

Source = str | os.PathLike[str] | Mapping[str, Any] | nn.Module | ModelFile


def load_weights(
    model: nn.Module,
    source: Source,
    strict: bool = True,
    rename: Rename = None,
    only: str | Iterable[str] | None = None,
    skip_mismatched: bool = False,
) -> LoadReport:
    """Fill a model's own parameters and buffers, all of them or none.

    Args:
        model: wrapped (DataParallel, ``torch.compile``) or not; lazy modules get their shapes, parameters on the meta
            device are made from the source. Its tensors stay the objects that they are, on their device, in their dtype.
        source: a file (see `relume.read_state`), a checkpoint (``"runs/fashion@best"``), tensors by name, or a model.
        strict: everything must fit. ``False`` loads what fits, keeps the rest, and warns of it.
        rename: a dict of names or prefixes, a list of ``(regular expression, replacement)``, a function from name to name
            (None leaves a tensor out), or ``"auto"``: names are inferred from shapes, order and structure, if that
            leaves no choice. A prefix that all names have too much or too little of needs none of these.
        only: patterns (``"features.*"``) of the model's names; everything else is left as it is.
        skip_mismatched: tensors of another shape keep their own values, such as those of a new head.

    Tensors of another dtype are converted, as long as no kind of number is lost (complex to real, float to integer).
    Frozen parameters are filled too. Old files are converted as ``load_state_dict`` does it.

    Cost: that of copying. Nothing else is held in memory, and planning takes 2.5 ms for a VGG-19.

    Raises:
        MismatchError: something does not fit; the message is the report. The model is as it was.
        ConfigurationError: arguments that make no sense: a pattern or a rename that fits nothing.
        ModelFileError, CheckpointError: the file cannot be read.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2))
        >>> report = load_weights(model, {"module.0.weight": torch.ones(2, 3), "module.0.bias": torch.zeros(2)})
        >>> print(report)
        Sequential from tensors by name: 2 tensors, 8 of 8 parameters (100%)
          prefix      'module.' removed from the names
        >>> report.missing
        ()
    """
    _check_arguments(model, strict, skip_mismatched)
    given = _read(source)
    target = _Target(unwrap(model))
    wanted = _patterns(only)
    selected = set(chosen(wanted, target.tensors))
    fitted = _fit_names(given, target, rename)
    planned = _plan(given, target, fitted)
    report = _describe(given, target, fitted, planned, selected, wanted)
    if rename is None and report.missing and report.unexpected:
        report = replace(report, proposed=propose(*_still_apart(given, target, fitted)))
    if _must_refuse(report, rename == "auto", strict, skip_mismatched):
        raise MismatchError(explain(report, rename == "auto"))
    fill(planned, is_owned=given.is_owned)
    report = _measured(report, target)
    if not strict and (report.kept or report.unexpected or report.unusable):
        warnings.warn(f"not everything was loaded. {report}", RelumeWarning, stacklevel=2)
    return report


def _check_arguments(model: Any, strict: Any, skip_mismatched: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"model is a {type(model).__name__}: load_weights takes the model first, then where its weights are."
        )
    for name, value in {"strict": strict, "skip_mismatched": skip_mismatched}.items():
        if not isinstance(value, bool):
            raise ConfigurationError(f"{name}={value!r:.60}: it is True or False.")


@dataclass
class _Given:
    """Tensors by name, and what else is known of them.

    Attributes:
        tensors: by the names that the source has.
        extras: ``_extra_state`` entries, whatever they are.
        label: the source in words.
        versions: torch's ``_metadata`` of the state_dict.
        is_owned: nobody else has the tensors.
    """

    tensors: dict[str, torch.Tensor]
    extras: dict[str, Any]
    label: str
    versions: Mapping[str, Any] | None
    is_owned: bool


def _read(source: Source) -> _Given:
    if isinstance(source, (str, os.PathLike)):
        from relume.models.files import open_model_file

        return _given(open_model_file(source).state, os.fspath(source), is_owned=True)
    if isinstance(source, ModelFile):
        return _given(source.state, str(source.path), is_owned=False)
    if isinstance(source, nn.Module):
        inner = unwrap(source)
        rename = canonical_in(inner)
        live = inner.state_dict()
        given = _given({rename(n): v for n, v in live.items()}, f"another {type(inner).__name__}", is_owned=False)
        given.versions = {rename(f"{n}.")[:-1]: v for n, v in getattr(live, "_metadata", {}).items()}
        return given
    if isinstance(source, Mapping):
        return _given(source, "tensors by name", is_owned=False)
    raise ConfigurationError(f"the source is a {type(source).__name__}: give a path, tensors by name, or a model.")


def _given(state: Mapping[str, Any], label: str, is_owned: bool) -> _Given:
    tensors, extras = {}, {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise MismatchError(f"{label} is no state_dict: it has the key {name!r:.60}, which is no text.")
        if name.rpartition(".")[2] == EXTRA:
            extras[name] = value
        elif is_uninitialized(value):
            raise MismatchError(
                f"{label}: {name} has no shape yet: it is of a lazy module that was never called. Call it once before."
            )
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            raise MismatchError(_no_tensor(state, name, label))
    versions = getattr(state, "_metadata", None)
    return _Given(tensors, extras, label, versions if isinstance(versions, Mapping) else None, is_owned)


def _no_tensor(state: Mapping[str, Any], name: str, label: str) -> str:
    inner = [key for key, value in state.items() if isinstance(value, Mapping) and "state" in str(key)]
    remedy = f"Give what is under {inner[0]!r}." if inner else "Give a dict from names to tensors."
    return f"{label} is no state_dict: {name!r:.80} is a {type(state[name]).__name__}. {remedy}"


class _Target:
    """A model without wrappers, and its tensors by the names that a user knows."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.live = own_tensors(module)
        self.canonical = canonical_in(module)
        self.inner_name = {self.canonical(name): name for name in module.state_dict(keep_vars=True)}
        self.tensors = {self.canonical(name): value for name, value in self.live.items()}
        self.groups = {key: [self.canonical(name) for name in names] for key, names in names_of(self.live).items()}

    def inner(self, name: str) -> str:
        """The name that the module itself uses."""
        return self.inner_name.get(name, name)


@dataclass
class _Fitted:
    """The names of the source as the model would call them.

    Attributes:
        names: name in the source to name in the model.
        prefixes: what was found about prefixes.
        renamed: of ``names``, what was renamed otherwise than by its prefix.
        proposed: what ``rename="auto"`` found.
    """

    names: dict[str, str]
    prefixes: Prefixes
    renamed: dict[str, str] = field(default_factory=dict)
    proposed: Proposal = field(default_factory=lambda: Proposal({}))


def _fit_names(given: _Given, target: _Target, rename: Rename) -> _Fitted:
    """What the user says, then the wrappers and prefixes, then, when asked, inference."""
    asked = renamed(rename, given.tensors)
    values = {new: given.tensors[old] for old, new in asked.items()}
    bare = _bare(values, target)
    prefixes = find_prefix({bare[name]: value for name, value in values.items()}, target.tensors)
    names = {old: prefixes.names[bare[new]] for old, new in asked.items()}
    fitted = _Fitted(names, prefixes, {old: new for old, new in names.items() if asked[old] != old})
    if rename == "auto":
        fitted.proposed = propose(*_still_apart(given, target, fitted))
        if not fitted.proposed.ambiguous:
            after = {old: fitted.proposed.mapping.get(new, new) for old, new in names.items()}
            fitted.renamed = {old: new for old, new in after.items() if new != names[old]}
            fitted.names = after
    return fitted


def _bare(values: Mapping[str, torch.Tensor], target: _Target) -> dict[str, str]:
    """Names without the segments that wrappers put into them, if the model knows them so, and no two become one."""
    bare = {name: name if name in target.tensors else canonical(name) for name in values}
    bare = {name: short if short in target.tensors else name for name, short in bare.items()}
    return bare if len(set(bare.values())) == len(bare) else {name: name for name in values}


def _still_apart(
    given: _Given, target: _Target, fitted: _Fitted
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Source and model for `propose`: a tied tensor, one of whose names is there, is not looked for by the others."""
    source = {new: given.tensors[old] for old, new in fitted.names.items()}
    own = {}
    for name, value in target.tensors.items():
        group = target.groups[id(value)]
        there = [other for other in group if other in source] or group[:1]
        if name in there and not is_uninitialized(value):
            own[name] = value
    return source, own


def _plan(given: _Given, target: _Target, fitted: _Fitted) -> Plan:
    state: dict[str, Any] = {target.inner(new): given.tensors[old] for old, new in fitted.names.items()}
    best = fitted.prefixes.best
    for name, value in given.extras.items():
        bare = name if target.inner(name) in target.inner_name else canonical(name)
        moved = best.added + bare[len(best.removed) :] if bare.startswith(best.removed) else bare
        state[target.inner(bare if bare in target.inner_name else moved)] = value
    return plan(target.module, target.live, state, _versions(given, target, fitted))


def _versions(given: _Given, target: _Target, fitted: _Fitted) -> Mapping[str, Any] | None:
    """The versions of the source's modules, under the names that these modules have in the model."""
    if given.versions is None:
        return None
    versions: dict[str, Any] = {}
    for old, new in fitted.names.items():
        theirs, ours = old.split("."), target.inner(new).split(".")
        while theirs and ours and theirs.pop() == ours.pop():
            known = given.versions.get(".".join(theirs))
            if isinstance(known, Mapping):
                versions.setdefault(".".join(ours), known)
    return versions


def _describe(
    given: _Given,
    target: _Target,
    fitted: _Fitted,
    planned: Plan,
    selected: set[str],
    wanted: list[str] | None,
) -> LoadReport:
    """The report; what cannot or shall not be loaded is taken out of the plan."""
    by_name = {new: old for old, new in fitted.names.items()}
    copies: dict[str, Copy] = {}
    for inner, copy in planned.copies.items():
        name = target.canonical(inner)
        if copy.value is not copy.target and not selected.isdisjoint(target.groups[id(copy.target)]):
            copies[name] = copy
    unusable = {name: why for name, copy in copies.items() if (why := _unusable(copy))}
    unusable |= _contradicting_ties(given, target, by_name, copies)
    unusable |= {f"({type(target.module).__name__})": text for text in planned.problems[:1]}
    shapes = {}
    for inner in planned.wrong_shape:
        name = target.canonical(inner)
        if name in selected and name not in by_name:
            unusable[name] = "its shape differs after the model has converted it"
        elif name in selected:
            value = given.tensors[by_name[name]]
            shapes[name] = Difference(tuple(value.shape), tuple(target.tensors[name].shape))
    dtypes = {
        name: Difference(copy.value.dtype, copy.target.dtype)
        for name, copy in copies.items()
        if copy.value.dtype != copy.target.dtype and name not in unusable
    }
    taken = {name: copy for name, copy in copies.items() if name not in unusable and name not in shapes}
    planned.copies = {target.inner(name): copy for name, copy in taken.items()}
    planned.extras = {n: extra for n, extra in planned.extras.items() if is_meant(target.canonical(n), wanted)}
    filled = {name for copy in taken.values() for name in target.groups[id(copy.target)]}
    tied = {name: first for first, copy in taken.items() for name in target.groups[id(copy.target)] if name != first}
    missing = [target.canonical(name) for name in planned.missing]
    unexpected = [by_name.get(target.canonical(name), target.canonical(name)) for name in planned.unexpected]
    return LoadReport(
        model=type(target.module).__name__,
        source=given.label,
        matched=tuple(name for name in target.tensors if name in taken or (name in tied and name in by_name)),
        missing=tuple(name for name in missing if is_meant(name, wanted)),
        unexpected=tuple(name for name in unexpected if is_meant(fitted.names.get(name, name), wanted)),
        shape_mismatches=shapes,
        dtype_mismatches=dtypes,
        unusable=unusable,
        tied=tied,
        renamed={old: new for old, new in fitted.renamed.items() if new in filled},
        prefix_removed=fitted.prefixes.best.removed,
        prefix_added=fitted.prefixes.best.added,
        rivals=tuple(rival.removed or rival.added for rival in fitted.prefixes.rivals),
        kept=tuple(name for name in target.tensors if name in selected and name not in filled),
        left_out=tuple(name for name in target.tensors if name not in selected and name not in filled),
        proposed=fitted.proposed if fitted.proposed.ambiguous else replace(fitted.proposed, mapping={}),
    )


def _patterns(only: str | Iterable[str] | None) -> list[str] | None:
    if only is not None and not isinstance(only, Iterable):
        raise ConfigurationError(f"only={only!r:.80}: give a pattern such as 'features.*', or several.")
    return None if only is None else [only] if isinstance(only, str) else list(only)


def _unusable(copy: Copy) -> str:
    """Why a value cannot be copied into its tensor, other than by its shape."""
    target, value = copy
    if value.is_meta:
        return "it has no values: it is on the meta device"
    if value.layout != target.layout or value.is_quantized != target.is_quantized:
        return f"it is {_kind(value)} where the model has {_kind(target)}"
    if value.dtype != target.dtype and not _converts(value.dtype, target.dtype):
        return f"{value.dtype} does not go into {target.dtype} without loss of meaning"
    if not is_uninitialized(target) and any(
        s == 0 and n > 1 for s, n in zip(target.stride(), target.shape, strict=True)
    ):
        return "the model's tensor is an expanded view, whose elements share memory"
    return ""


def _kind(value: torch.Tensor) -> str:
    return "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")


def _converts(source: torch.dtype, own: torch.dtype) -> bool:
    if not torch.can_cast(source, own):
        return False
    try:
        torch.empty(1, dtype=own).copy_(torch.empty(1, dtype=source))
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _contradicting_ties(
    given: _Given, target: _Target, by_name: Mapping[str, str], copies: Mapping[str, Copy]
) -> dict[str, str]:
    """Where the model has one tensor and the source has several for it, they must be the same."""
    found = {}
    for first, copy in copies.items():
        for name in target.groups[id(copy.target)]:
            value = given.tensors.get(by_name.get(name, ""))
            if value is not None and value is not copy.value and not _same(value, copy.value):
                found[first] = f"it is tied to {name} in the model, and their values differ in the source"
    return found


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype or first.layout != second.layout or first.is_meta:
        return False
    if first.layout != torch.strided or first.is_quantized:
        return bool(torch.equal(first, second))
    is_one = first.data_ptr() == second.data_ptr() and first.stride() == second.stride()
    return is_one or bool(torch.equal(as_bytes(first), as_bytes(second)))


def _must_refuse(report: LoadReport, asked_auto: bool, strict: bool, skip_mismatched: bool) -> bool:
    has_nothing = not report.matched and bool(report.kept)
    if has_nothing or (asked_auto and report.proposed.ambiguous):
        return True
    if not strict:
        return False
    shapes = bool(report.shape_mismatches) and not skip_mismatched
    return bool(report.missing or report.unexpected or report.unusable or shapes)


def _measured(report: LoadReport, target: _Target) -> LoadReport:
    """The report with its sizes, which lazy modules have only now."""
    now = {target.canonical(name): value for name, value in own_tensors(target.module).items()}
    filled = {*report.matched, *report.tied}
    once: dict[int, tuple[str, torch.Tensor]] = {}
    for name, value in now.items():
        if not is_uninitialized(value):
            once.setdefault(id(value), (name, value))
    there = list(once.values())
    ours = [(name, value) for name, value in there if name in filled]
    return replace(
        report,
        parameters=_count(ours),
        parameters_total=_count(there),
        size_bytes=sum(value.nbytes for _, value in ours),
        size_bytes_total=sum(value.nbytes for _, value in there),
    )


def _count(tensors: Iterable[tuple[str, torch.Tensor]]) -> int:
    return sum(value.numel() for _, value in tensors if isinstance(value, nn.Parameter))
