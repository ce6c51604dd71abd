"""What is in a bundle, on a page: who made it, what is claimed, and how it can be opened here. Nothing in it is run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel

from relume.datasets import ToTensor
from relume.errors import ConfigurationError
from relume.page import Block, Grid, Shown, line
from relume.share.bundle import Bundle
from relume.share.documents import (
    CARD,
    CHECKPOINT_FOLDER,
    CLAIMS,
    CODE,
    CODE_FOLDER,
    DATA,
    ENVIRONMENT,
    EXAMPLES,
    GRAPH_FOLDER,
    INPUT,
    LINEAGE,
    MODEL,
    PICTURES_FOLDER,
    RUN,
    SAMPLE_FOLDER,
    WEIGHTS,
    Claims,
    CodeFacts,
    Data,
    DataSet,
    Environment,
    Evaluation,
    Examples,
    Lineage,
    Model,
    Preprocessing,
    RunFacts,
)
from relume.share.opening import Way, classes_of, ways
from relume.share.weights import weights_digest
from relume.text import counted, size

_Kind = TypeVar("_Kind", bound=BaseModel)
_PARTS = {
    WEIGHTS: "weights",
    CODE_FOLDER: "code",
    GRAPH_FOLDER: "graph",
    "examples/": "examples",
    PICTURES_FOLDER: "pictures",
    SAMPLE_FOLDER: "sample of the data",
    CHECKPOINT_FOLDER: "checkpoint to train on",
    CARD: "model card",
}
_SHOWN = 20


@dataclass(frozen=True)
class BundleFacts(Shown):
    """What a bundle holds, all of whose bytes were compared with its manifest.

    Attributes:
        digest: that of the manifest; it stands for the whole bundle.
        has_named_weights: whether the weights are those that config.json names; None where it names none.
        parts: what takes how many files and bytes.
        ways: how its model can be opened here.
    """

    path: str
    name: str
    digest: str
    packed_by: str
    size_bytes: int
    files: int
    model: Model
    run: RunFacts
    preprocessing: Preprocessing
    claims: Claims
    data: Data
    environment: Environment
    lineage: Lineage
    code: CodeFacts
    examples: int
    has_named_weights: bool | None
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    ways: tuple[Way, ...] = ()

    def page(self) -> list[Block]:
        return list(_page(self))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        documents = ("model", "run", "preprocessing", "claims", "data", "environment", "lineage", "code")
        return {
            "path": self.path,
            "format": "bundle",
            "name": self.name,
            "digest": self.digest,
            "packed_by": self.packed_by,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "is_verified": True,
            "has_named_weights": self.has_named_weights,
            "parts": {name: {"files": count, "bytes": total} for name, (count, total) in self.parts.items()},
            "ways": [{"way": one.name, "problem": one.problem, "detail": one.detail} for one in self.ways],
            **{name: getattr(self, name).model_dump(mode="json") for name in documents},
        }


def look(bundle: Bundle) -> BundleFacts:
    """What is in a bundle that `Bundle.open` has verified.

    Raises:
        BundleError: a file in it is not understood.
    """
    model = _document(bundle, MODEL, Model)
    found: dict[str, tuple[int, int]] = {}
    for member in bundle.manifest.members:
        part = next((name for start, name in _PARTS.items() if member.path.startswith(start)), "facts")
        count, total = found.get(part, (0, 0))
        found[part] = count + 1, total + member.size_bytes
    named = None
    if WEIGHTS in bundle and model.weights_digest:
        named = weights_digest(bundle.tensors(WEIGHTS).state) == model.weights_digest
    examples = bundle.document(EXAMPLES, Examples).batch_size if EXAMPLES in bundle else 0
    return BundleFacts(
        path=str(bundle.path),
        name=bundle.name,
        digest=bundle.manifest.digest,
        packed_by=bundle.manifest.relume,
        size_bytes=sum(member.size_bytes for member in bundle.manifest.members),
        files=len(bundle.manifest.members),
        model=model,
        run=_document(bundle, RUN, RunFacts),
        preprocessing=_document(bundle, INPUT, Preprocessing),
        claims=_document(bundle, CLAIMS, Claims),
        data=_document(bundle, DATA, Data),
        environment=_document(bundle, ENVIRONMENT, Environment),
        lineage=_document(bundle, LINEAGE, Lineage),
        code=_document(bundle, CODE, CodeFacts),
        examples=examples,
        has_named_weights=named,
        parts=dict(sorted(found.items(), key=lambda item: -item[1][1])),
        ways=tuple(ways(bundle)),
    )


def _document(bundle: Bundle, member: str, kind: type[_Kind]) -> _Kind:
    return bundle.document(member, kind) if member in bundle else kind()


# ---------------------------------------------------------------------------------------------------------------- page


def _page(found: BundleFacts) -> Iterator[Block]:
    title = found.run.title or found.name
    yield line(f"{title}  bundle, {size(found.size_bytes)}, {counted(found.files, 'file')}", "bold")
    yield line(f"identity    {found.digest}")
    yield line("checks      every byte is as it was packed", "green")
    if found.has_named_weights is False:
        yield line(f"{'':<11} the weights are not those that {MODEL} names: they were swapped", "bold red")
    for name, text in _facts(found):
        yield line(f"{name:<11} {text}")
    yield from _claims(found)
    if found.data.sets:
        yield Grid(
            ["data", "samples", "what"], [(_set(one), _count(one.samples), _about(one)) for one in found.data.sets]
        )
    for number, one in enumerate(found.ways):
        style = "yellow" if one.problem else "green"
        yield line(f"{'' if number else 'opens by':<11} {one.name}: {_way(one)}", style)
    yield Grid(["part", "files", "size"], [(name, count, size(total)) for name, (count, total) in found.parts.items()])


def _facts(found: BundleFacts) -> Iterator[tuple[str, str]]:
    run, model, environment = found.run, found.model, found.environment
    yield "authors", ", ".join(run.authors) or "not named"
    yield "licence", run.licence or "not named: ask before you use it"
    if run.citation:
        yield "cite", run.citation
    kind = ", ".join(model.architectures) or "of a class that is not named"
    yield "model", f"{kind}, {model.parameters:,} parameters" if model.parameters else kind
    yield "input", _input(found.preprocessing)
    if classes := classes_of(model, found.preprocessing):
        more = f", … ({len(classes)})" if len(classes) > 8 else ""
        yield "classes", ", ".join(classes[:8]) + more
    if run.name:
        after = f", after epoch {run.epoch}" if run.epoch is not None else ""
        day = f", {datetime.fromtimestamp(run.created, UTC):%Y-%m-%d}" if _is_time(run.created) else ""
        yield "run", f"{run.name}{after}{day}"
    if run.command:
        yield "command", " ".join(run.command)
    versions = [
        f"{name} {environment.packages[name]}"
        for name in ("torch", "torchvision", "timm")
        if name in environment.packages
    ]
    where = [
        f"Python {environment.python}" if environment.python else "",
        *versions,
        environment.device,
        environment.system,
    ]
    if any(where):
        yield "made with", ", ".join(filter(None, where))
    for ancestor in found.lineage.ancestors[:4]:
        licence = f" ({ancestor.licence})" if ancestor.licence else ""
        yield "comes from", f"{ancestor.name}{licence}"
    if found.examples:
        yield "examples", f"{counted(found.examples, 'input')} with the outputs that the author got"
    yield "packed by", f"relume {found.packed_by}" if found.packed_by else "not named"


def _claims(found: BundleFacts) -> Iterator[Block]:
    claims = found.claims.claims
    if not claims:
        yield line("claims      none")
        return
    evaluations = dict(enumerate(found.claims.evaluations))
    rows = [
        (one.name, f"{one.value:.6g}", _measured(found, evaluations.get(one.evaluation))) for one in claims[:_SHOWN]
    ]
    note = f"and {len(claims) - _SHOWN} more" if len(claims) > _SHOWN else ""
    yield Grid(["metric", "claimed", "what"], rows, note)


def _measured(found: BundleFacts, evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "how it was measured is not said"
    sets = dict(enumerate(found.data.sets))
    data = sets.get(evaluation.data) if evaluation.data is not None else None
    on = f"on {_set(data)}" if data is not None else "on data that is not named"
    return f"{on}, while {evaluation.where}"


def _set(one: DataSet) -> str:
    return ", ".join(dict.fromkeys(filter(None, (one.name or one.kind, one.role, one.split))))


def _about(one: DataSet) -> str:
    return (
        ", ".join(filter(None, (one.licence, f"fingerprint {one.fingerprint[:12]}" if one.fingerprint else ""))) or "-"
    )


def _way(one: Way) -> str:
    if one.problem:
        return f"no, {one.problem}"
    return f"{'with --trust' if one.name == 'code' else 'yes'}, {one.detail}"


def _input(one: Preprocessing) -> str:
    if one.kind == "tensors":
        return "tensors, prepared as the code does it"
    try:
        prepare = ToTensor.of_config(one.settings) if one.kind == "image" else None
    except ConfigurationError as error:
        return f"pictures, and it is not understood how they are prepared: {error}"
    if prepare is None:
        return "not known"
    pixels = f"{prepare.size} x {prepare.size} pixels" if prepare.size else "of any size"
    colours = {1: "grey", 3: "RGB"}.get(prepare.channels or 0, "as they are")
    return f"pictures, {pixels}, {colours}{', normalised' if prepare.mean else ''}"


def _is_time(created: float | None) -> bool:
    return created is not None and 0 < created < 2**33


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
