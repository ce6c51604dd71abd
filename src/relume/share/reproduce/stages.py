"""The stages of a check up to the outputs: digests, environment, weights, preprocessing, outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from relume.errors import RelumeError
from relume.models.bundled import Through
from relume.share import documents
from relume.share.bundle import Bundle
from relume.share.documents import Environment, Preprocessing
from relume.share.reproduce.environment import environment_stage, threads_of
from relume.share.reproduce.numbers import INPUT_TOLERANCE, compare, same_bits
from relume.share.reproduce.subject import Subject, reason, unchecked
from relume.share.reproduce.told import class_names, names_in_config
from relume.share.reproduce.verdicts import Row, Stage, Verdict
from relume.share.weights import weights_digest
from relume.text import counted, size

_MAX_NAMED = 20
NO_EXAMPLES = "the bundle has no examples (packed with examples=0)"


def digests(bundle: Bundle) -> Stage:
    """Every byte, compared with the manifest."""
    members = bundle.manifest.members
    whole = sum(member.size_bytes for member in members)
    text = f"{counted(len(members), 'file')}, {size(whole)}"
    found = bundle.differences()
    if not found:
        row = Row(claim="every byte", claimed=text, found="the same digests", verdict=Verdict.EXACT)
        return Stage(name="digests", rows=[row])
    rows = [
        Row(claim=one.member or "the archive", verdict=Verdict.DIFFERENT, why=one.problem) for one in found[:_MAX_NAMED]
    ]
    if len(found) > _MAX_NAMED:
        rows.append(Row(claim="others", verdict=Verdict.DIFFERENT, why=f"{len(found) - _MAX_NAMED} more files differ"))
    return Stage(name="digests", rows=rows)


def environment(subject: Subject) -> tuple[Stage, Environment | None]:
    """What differs between there and here."""
    try:
        author = subject.environment()
    except RelumeError as error:
        return Stage(name="environment", rows=[unchecked("environment", error)]), None
    return environment_stage(author, subject.here), author


# ------------------------------------------------------------------------------------------------------------ weights


def weights(subject: Subject) -> Stage:
    """The weights are those that the author's measurements name, and the model opens with them."""
    try:
        config = subject.config()
        state = subject.bundle.tensors(documents.WEIGHTS).state
        digest = weights_digest(state)
    except Exception as error:
        return Stage(name="weights", rows=[Row(claim="weights", verdict=Verdict.DIFFERENT, why=reason(error))])
    claim = f"{counted(len(state), 'tensor')} of {documents.WEIGHTS}"
    if not config.weights_digest:
        rows = [unchecked(claim, f"{documents.MODEL} names no digest of the weights", found=digest)]
    else:
        is_same = config.weights_digest == digest
        why = "" if is_same else "these are other weights than those that the author measured"
        verdict = Verdict.EXACT if is_same else Verdict.DIFFERENT
        rows = [Row(claim=claim, claimed=config.weights_digest, found=digest, verdict=verdict, why=why)]
    rows += [_opened(subject, way, why, state) for way, why in _ways(subject)]
    return Stage(name="weights", rows=rows)


def _ways(subject: Subject) -> Iterator[tuple[Through, str]]:
    """The ways to open the model that the bundle has, and why one is not taken."""
    config = subject.config()
    has_recipe = config.document is not None
    if not has_recipe and not config.has_graph:
        yield "recipe", config.why_no_document or "the bundle does not say how the model is built"
    if has_recipe and not config.needs_code:
        yield "recipe", ""
    if has_recipe and config.needs_code:
        text = f"{config.needs_code} is code of the bundle, which runs only when it is trusted (--trust, trust=True)"
        yield "code", "" if subject.trust else text
    if config.has_graph:
        yield "graph", ""
    elif config.why_no_graph:
        yield "graph", config.why_no_graph


def _opened(subject: Subject, way: Through, why_not: str, state: Mapping[str, Any]) -> Row:
    from relume.share.opening import open_model

    claim = f"opens by {'its code' if way == 'code' else f'its {way}'}"
    if why_not:
        return unchecked(claim, why_not)
    try:
        model = open_model(subject.bundle, trust=subject.trust, through=way).eval()
    except Exception as error:
        return unchecked(claim, error)
    subject.models[way] = model
    kind = f"{type(model).__name__} with {_parameters(model):,} parameters"
    if way == "graph":
        return Row(claim=claim, found=f"{type(model).__name__}", verdict=Verdict.EXACT)
    unlike = _unlike(model, state)
    if unlike:
        return Row(claim=claim, found=kind, verdict=Verdict.DIFFERENT, why=f"{unlike} is not what the file holds")
    return Row(claim=claim, found=kind, verdict=Verdict.EXACT)


def _unlike(model: nn.Module, state: Mapping[str, Any]) -> str:
    """A tensor of the model that is not the file's."""
    held = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    if set(held) != set(state):
        return ", ".join(sorted(set(held) ^ set(state))[:3])
    return next((name for name, value in held.items() if not same_bits(value.cpu(), state[name])), "")


def _parameters(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


# ------------------------------------------------------------------------------------------- preprocessing and outputs


def preprocessing(subject: Subject) -> Stage:
    """From the raw example to what the model takes."""
    why = (
        f"Inputs may differ by {INPUT_TOLERANCE:g} of the largest: preprocessing is a handful of float32 operations, and a "
        "grey level is 4000 times as much."
    )
    rows: list[Row] = []
    try:
        settings = subject.preprocessing()
        rows += _own_words(settings)
        rows += class_names(subject, names_in_config(subject), documents.MODEL)
        rows.append(_prepared(subject.bundle))
    except Exception as error:
        rows.append(unchecked("inputs of the examples", error))
    return Stage(name="preprocessing", rows=rows, tolerance=why)


def _prepared(bundle: Bundle) -> Row:
    from relume.share.examples import prepared, stored

    claim = "inputs of the examples"
    if documents.EXAMPLES not in bundle:
        return unchecked(claim, NO_EXAMPLES)
    made = prepared(bundle)
    if made is None:
        return unchecked(claim, "the examples are stored as inputs: there is no raw form to begin from")
    inputs = stored(bundle).args
    return compare(claim, inputs[0] if inputs else None, made, INPUT_TOLERANCE, "input")


def _own_words(settings: Preprocessing) -> Iterator[Row]:
    """What other programs read there agrees with what relume reads."""
    claimed = {"image_mean": settings.image_mean, "image_std": settings.image_std}
    for name, value in claimed.items():
        own = settings.settings.get(name.removeprefix("image_"))
        if value is not None and (own is None or list(own) != list(value)):
            why = f"{documents.INPUT} says {name} {value} for other programs, and {own} in its settings"
            yield Row(claim=name, claimed=str(value), found=str(own), verdict=Verdict.DIFFERENT, why=why)
    side = settings.settings.get("size")
    if settings.size is not None and {side} != set(settings.size.values()):
        why = f"{documents.INPUT} says size {settings.size} for other programs, and {side} in its settings"
        yield Row(claim="size", claimed=str(settings.size), found=str(side), verdict=Verdict.DIFFERENT, why=why)


def outputs(subject: Subject) -> Stage:
    """What the model gives for the stored inputs, by each way that it opens."""
    why = (
        "Outputs may differ by 1e-4 (float32) of the largest: other processors and versions add in another order, some "
        "hundred roundings after many layers. Predicted classes must be equal."
    )
    rows: list[Row] = []
    if documents.EXAMPLES not in subject.bundle:
        rows.append(unchecked("outputs of the examples", NO_EXAMPLES))
    elif not subject.models:
        rows.append(unchecked("outputs of the examples", "the model could not be opened"))
    else:
        for way, model in subject.models.items():
            rows += _outputs_of(subject, way, model)
    return Stage(name="outputs", rows=rows, tolerance=why)


def _outputs_of(subject: Subject, way: str, model: nn.Module) -> list[Row]:
    from relume.share.examples import run_examples

    claim = f"outputs ({way})"
    try:
        examples = subject.examples()
        with threads_of(examples.environment.get("threads")):
            found, expected = run_examples(model, subject.bundle)
        return [compare(claim, expected, found), *_classes(f"predicted classes ({way})", expected, found)]
    except Exception as error:
        return [unchecked(claim, error)]


def _classes(claim: str, expected: Any, found: Any) -> Iterator[Row]:
    """The class with the largest output, where the output is one of classes."""
    if not (isinstance(expected, torch.Tensor) and isinstance(found, torch.Tensor)) or expected.shape != found.shape:
        return
    if expected.dim() != 2 or expected.shape[1] < 2 or not torch.isfinite(expected).all():
        return
    if not len(expected):
        return
    a, b = expected.argmax(1).tolist(), found.argmax(1).tolist()
    is_same = a == b
    why = "" if is_same else f"{sum(x != y for x, y in zip(a, b, strict=True))} of {len(a)} examples get another class"
    verdict = Verdict.EXACT if is_same else Verdict.DIFFERENT
    yield Row(claim=claim, claimed=_listed(a), found=_listed(b), verdict=verdict, why=why)


def _listed(classes: list[int]) -> str:
    return ", ".join(map(str, classes[:16])) + (" …" if len(classes) > 16 else "")
