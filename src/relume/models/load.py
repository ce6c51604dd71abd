"""Weights into a model: from a file, from tensors by name, or from another model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from relume.errors import ConfigurationError, MismatchError, warn
from relume.models.assigned import Assignment
from relume.models.filling import Copy, Plan, fill, own_tensors, plan
from relume.models.matching import Prefix, Prefixes, Proposal, Shift, find_prefix, find_shifts, propose
from relume.models.renames import Rename, chosen, is_meant, renamed
from relume.models.report import Difference, LoadReport, explain
from relume.models.sides import Given, Source, Target, read_source
from relume.models.usable import unusable
from relume.names import canonical, is_uninitialized, unwrap


def load_weights(
    model: nn.Module,
    source: Source,
    strict: bool = True,
    rename: Rename = None,
    only: str | Iterable[str] | None = None,
    skip_mismatched: bool = False,
    *,
    source_model: str | None = None,
) -> LoadReport:
    """Fill a model's own parameters and buffers, all of them or none.

    Args:
        model: wrapped (DataParallel, ``torch.compile``) or not; lazy modules get their shapes, parameters on the meta
            device are made from the source. Its tensors stay the objects that they are, on their device, in their dtype.
        source: a file (see `relume.read_state`), a checkpoint (``"runs/fashion@best"``), tensors or numpy arrays by name, or a
            model.
        strict: everything must fit. ``False`` loads what fits, keeps the rest, and warns of it.
        rename: a dict of names or prefixes, a list of ``(regular expression, replacement)``, a function from name to name
            (None leaves a tensor out), or ``"auto"``: names are inferred from shapes, order and structure, if that
            leaves no choice. A prefix that all names have too much or too little of needs none of these.
        only: patterns (``"features.*"``) of the model's names; everything else is left as it is.
        skip_mismatched: tensors of another shape keep their own values, such as those of a new head.
        source_model: which of several models in the file or the checkpoint.

    Tensors of another dtype are converted, as long as no kind of number is lost (complex to real, float to integer).
    Frozen parameters are filled too. Old files are converted as ``load_state_dict`` does it.

    Cost: that of copying. Nothing else is held in memory, and planning takes 2.5 ms for a VGG-19.

    Raises:
        MismatchError: something does not fit; the message is the report. The model is as it was. So it is, ``strict`` or
            not, where layers are counted from 1 on one side and from 0 on the other.
        ConfigurationError: arguments that make no sense: a pattern or a rename that fits nothing.
        ModelFileError, CheckpointError: the file cannot be read.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2))
        >>> report = load_weights(model, {"module.0.weight": torch.ones(2, 3), "module.0.bias": torch.zeros(2)})
        >>> print(report)
        Sequential from the given tensors: 2 tensors, 8 of 8 parameters (100%)
          prefix      'module.' removed from the names
        >>> report.missing
        ()
    """
    _check_arguments(model, strict, skip_mismatched)
    given = read_source(source, source_model)
    target = Target(unwrap(model))
    wanted = _patterns(only)
    selected = chosen(wanted, target.tensors)
    fitted = _fit_names(given, target, rename, selected)
    planned = _plan(given, target, fitted)
    report = _describe(given, target, fitted, planned, wanted)
    if rename is None and report.missing and report.unexpected and not report.shifts:
        proposed = _infer(given, target, fitted)[1]
        report = replace(report, proposed=proposed, proposed_mismatches=_proposed_mismatches(given, target, proposed))
    if _must_refuse(report, rename == "auto", strict, skip_mismatched):
        raise MismatchError(explain(report, rename == "auto"))
    fill(planned, is_owned=given.is_owned)
    report = _measured(report, target)
    if not strict and (report.kept or report.unexpected or report.unusable):
        warn(f"not everything was loaded. {report}")
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
class _Fitted:
    """The names of the source as the model would call them.

    Attributes:
        asked: name in the source to what ``rename=`` makes of it.
        names: name in the source to name in the model.
        prefixes: what was found about prefixes.
        renamed: of ``names``, what was renamed otherwise than by its prefix.
        proposed: what ``rename="auto"`` found.
        shifts: layers that would be loaded into those beside them, where the user did not name them.
    """

    asked: dict[str, str]
    names: dict[str, str]
    prefixes: Prefixes
    renamed: dict[str, str] = field(default_factory=dict)
    proposed: Proposal = field(default_factory=lambda: Proposal({}))
    shifts: tuple[Shift, ...] = ()


def _fit_names(given: Given, target: Target, rename: Rename, selected: Iterable[str]) -> _Fitted:
    """What the user says, then the wrappers and prefixes, then, when asked, inference.

    Among prefixes that fit equally well, ``selected`` (what ``only=`` means) decides.
    """
    asked = renamed(rename, given.tensors)
    values = {new: given.tensors[old] for old, new in asked.items()}
    prefixes = find_prefix(values, target.tensors)
    if prefixes.rivals:
        meant = find_prefix(values, {name: target.tensors[name] for name in selected})
        is_rival = any(replace(meant.best, fits=rival.fits) == rival for rival in prefixes.rivals)
        prefixes = meant if is_rival else prefixes
    bare = _bare(prefixes.names.values(), target)
    names = {old: bare[prefixes.names[new]] for old, new in asked.items()}
    fitted = _Fitted(asked, names, prefixes, {old: new for old, new in names.items() if asked[old] != old})
    if rename is None:
        return replace(fitted, shifts=find_shifts(names, given.tensors, target.tensors))
    if rename != "auto":
        return fitted
    basis, found = _infer(given, target, fitted)
    shifts = find_shifts(basis.names, given.tensors, target.tensors)
    return replace(_inferred(fitted, basis, found), shifts=shifts)


def _inferred(fitted: _Fitted, basis: _Fitted, found: Proposal) -> _Fitted:
    """With the names that were found; or with what is ambiguous, and then none of them."""
    if found.ambiguous:
        return replace(fitted, proposed=found)
    changed = {old: own for old, own in found.mapping.items() if basis.names[old] != own}
    return replace(basis, names={**basis.names, **changed}, renamed=changed, proposed=replace(found, mapping={}))


def _infer(given: Given, target: Target, fitted: _Fitted) -> tuple[_Fitted, Proposal]:
    """The names that were the basis, and what `propose` finds from them.

    A prefix that takes another's place is only a part of a renaming if not all names have it: then the names as they are
    tell more.
    """
    best = fitted.prefixes.best
    if best.removed and best.added and best.fits < len(fitted.names):
        plain = replace(fitted, names=dict(fitted.asked), prefixes=Prefixes(Prefix(), fitted.asked))
        found = _propose(given, target, plain.names)
        if found.mapping and not found.ambiguous:
            return plain, found
    return fitted, _propose(given, target, fitted.names)


def _propose(given: Given, target: Target, names: Mapping[str, str]) -> Proposal:
    """By the names that the source itself has.

    A tied tensor, one of whose names is there, is not looked for by the others.
    """
    source = {new: given.tensors[old] for old, new in names.items()}
    own = {}
    for name, value in target.tensors.items():
        group = target.groups[id(value)]
        there = [other for other in group if other in source] or group[:1]
        if name in there and not is_uninitialized(value):
            own[name] = value
    found = propose(source, own)
    back = {new: old for old, new in names.items()}
    return replace(
        found,
        mapping={back[new]: own_name for new, own_name in found.mapping.items()},
        ambiguous=tuple(replace(one, source=tuple(back[new] for new in one.source)) for one in found.ambiguous),
    )


def _bare(names: Iterable[str], target: Target) -> dict[str, str]:
    """Names without what wrappers of single modules put into them, if the model knows them so, and no two become one."""
    bare = {name: name if name in target.tensors else canonical(name) for name in names}
    bare = {name: short if short in target.tensors else name for name, short in bare.items()}
    return bare if len(set(bare.values())) == len(bare) else {name: name for name in bare}


def _plan(given: Given, target: Target, fitted: _Fitted) -> Plan:
    state: dict[str, Any] = {target.inner(new): given.tensors[old] for old, new in fitted.names.items()}
    best = fitted.prefixes.best
    for name, value in given.extras.items():
        bare = name if target.inner(name) in target.inner_name else canonical(name)
        moved = best.added + bare[len(best.removed) :] if bare.startswith(best.removed) else bare
        state[target.inner(bare if bare in target.inner_name else moved)] = value
    return plan(target.module, target.live, state, _versions(given, target, fitted))


def _versions(given: Given, target: Target, fitted: _Fitted) -> Mapping[str, Any] | None:
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


def _describe(given: Given, target: Target, fitted: _Fitted, planned: Plan, wanted: list[str] | None) -> LoadReport:
    """The report; what cannot or shall not be loaded is taken out of the plan."""
    selected = set(chosen(wanted, target.tensors))
    by_name = {new: old for old, new in fitted.names.items()}
    copies = {
        target.canonical(inner): copy
        for inner, copy in planned.copies.items()
        if copy.value is not copy.target and not selected.isdisjoint(target.groups[id(copy.target)])
    }
    shapes, converted = _wrong_shapes(given, target, planned, selected, by_name)
    bad = unusable(given, target, by_name, copies, wanted) | converted
    bad |= {f"({type(target.module).__name__})": text for text in planned.problems[:1]}
    copies = {name: copy for name, copy in copies.items() if name not in bad and name not in shapes}
    planned.copies = {target.inner(name): copy for name, copy in copies.items()}
    planned.assigned = [one for one in planned.assigned if _is_wanted(one, planned, target, selected, wanted)]
    planned.extras = {n: extra for n, extra in planned.extras.items() if is_meant(target.canonical(n), wanted)}
    names = {name: target.groups[id(copy.target)] for name, copy in copies.items()}
    tied = {name: first for first, group in names.items() for name in group if name != first}
    filled = {*copies, *tied}
    missing = [target.canonical(name) for name in planned.missing]
    unexpected = [by_name.get(target.canonical(name), target.canonical(name)) for name in planned.unexpected]
    prefixes = fitted.prefixes
    return LoadReport(
        model=type(target.module).__name__,
        source=given.label,
        matched=tuple(name for name in target.tensors if name in copies or (name in tied and name in by_name)),
        missing=tuple(name for name in missing if is_meant(name, wanted)),
        unexpected=tuple(name for name in unexpected if is_meant(fitted.names.get(name, name), wanted)),
        shape_mismatches=shapes,
        dtype_mismatches=_conversions(copies),
        unusable=bad,
        tied=tied,
        renamed={old: new for old, new in fitted.renamed.items() if new in filled},
        prefix_removed=prefixes.best.removed,
        prefix_added=prefixes.best.added,
        rivals=prefixes.rivals,
        kept=tuple(name for name in target.tensors if name in selected and name not in filled),
        left_out=tuple(name for name in target.tensors if name not in selected and name not in filled),
        proposed=fitted.proposed if fitted.proposed.ambiguous else replace(fitted.proposed, mapping={}),
        shifts=tuple(one for one in fitted.shifts if any(name.startswith(one.stem) for name in copies)),
    )


def _is_wanted(
    one: Assignment, planned: Plan, target: Target, selected: Iterable[str], wanted: list[str] | None
) -> bool:
    """Bookkeeping goes with the tensors of its module."""
    if one.names:
        return not planned.copies.keys().isdisjoint(one.names)
    return wanted is None or any(target.inner(name).rpartition(".")[0] in one.modules for name in selected)


def _wrong_shapes(
    given: Given, target: Target, planned: Plan, selected: set[str], by_name: Mapping[str, str]
) -> tuple[dict[str, Difference], dict[str, str]]:
    """Shapes that differ, and those of which only the model's own conversion knows."""
    shapes, converted = {}, {}
    for name in map(target.canonical, planned.wrong_shape):
        if name in selected and name in by_name:
            value = given.tensors[by_name[name]]
            shapes[name] = Difference(tuple(value.shape), tuple(target.tensors[name].shape))
        elif name in selected:
            converted[name] = "its shape differs after the model has converted it"
    return shapes, converted


def _proposed_mismatches(given: Given, target: Target, proposed: Proposal) -> dict[str, Difference]:
    pairs = ((new, given.tensors[old].shape, target.tensors[new]) for old, new in proposed.mapping.items())
    return {name: Difference(tuple(shape), tuple(own.shape)) for name, shape, own in pairs if shape != own.shape}


def _conversions(copies: Mapping[str, Copy]) -> dict[str, Difference]:
    return {
        name: Difference(value.dtype, own.dtype) for name, (own, value) in copies.items() if value.dtype != own.dtype
    }


def _patterns(only: str | Iterable[str] | None) -> list[str] | None:
    if only is not None and not isinstance(only, Iterable):
        raise ConfigurationError(f"only={only!r:.80}: give a pattern such as 'features.*', or several.")
    return None if only is None else [only] if isinstance(only, str) else list(only)


def _must_refuse(report: LoadReport, asked_auto: bool, strict: bool, skip_mismatched: bool) -> bool:
    has_nothing = not report.matched and bool(report.kept)
    if has_nothing or report.shifts or (asked_auto and report.proposed.ambiguous):
        return True
    if not strict:
        return False
    shapes = bool(report.shape_mismatches) and not skip_mismatched
    return bool(report.missing or report.unexpected or report.unusable or shapes)


def _measured(report: LoadReport, target: Target) -> LoadReport:
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
