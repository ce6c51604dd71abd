"""All that a bundle says about itself, parsed: what its card and its crate are written from."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from relume.monitor.classes import ClassReport
from relume.share import documents as files
from relume.share.bundle import Bundle
from relume.share.documents import (
    Claim,
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

_MOST_PICTURES, _LARGEST_PICTURE_BYTES = 64, 16 << 20
_Document = TypeVar("_Document", bound=BaseModel)


@dataclass(frozen=True)
class Documents:
    """The documents of a bundle.

    Attributes:
        name: what the bundle is called; its file is ``<name>.relume``.
        relume: the version that packs it.
        examples, code: None where the bundle has none.
        raw: the pictures of the examples, as PNG, by their paths in the bundle.
        outputs: what the model gave for each example: a score for each class. Empty where it gives something else.
    """

    name: str
    relume: str = ""
    model: Model = field(default_factory=Model)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    run: RunFacts = field(default_factory=RunFacts)
    claims: Claims = field(default_factory=Claims)
    data: Data = field(default_factory=Data)
    lineage: Lineage = field(default_factory=Lineage)
    environment: Environment = field(default_factory=Environment)
    examples: Examples | None = None
    code: CodeFacts | None = None
    raw: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Sequence[Sequence[float]] = ()

    @classmethod
    def read(cls, bundle: Bundle) -> Documents:
        """Those of a bundle that exists.

        Raises:
            BundleError: one of them is not of its form.
        """

        def found(member: str, kind: type[_Document]) -> _Document | None:
            return bundle.document(member, kind) if member in bundle else None

        examples = found(files.EXAMPLES, Examples)
        shown = [one.raw for one in examples.examples if one.raw][:_MOST_PICTURES] if examples else []
        return cls(
            name=bundle.name,
            relume=bundle.manifest.relume,
            model=found(files.MODEL, Model) or Model(),
            preprocessing=found(files.INPUT, Preprocessing) or Preprocessing(),
            run=found(files.RUN, RunFacts) or RunFacts(),
            claims=found(files.CLAIMS, Claims) or Claims(),
            data=found(files.DATA, Data) or Data(),
            lineage=found(files.LINEAGE, Lineage) or Lineage(),
            environment=found(files.ENVIRONMENT, Environment) or Environment(),
            examples=examples,
            code=found(files.CODE, CodeFacts),
            raw={path: bundle.read(path, _LARGEST_PICTURE_BYTES) for path in shown if path in bundle},
            outputs=_outputs(bundle, examples),
        )

    @property
    def title(self) -> str:
        """What the author calls it."""
        return self.run.title or self.name

    @property
    def day(self) -> str:
        """The day on which the run began, in UTC, as ``2024-05-31``; empty where it is not known."""
        return self.moment()[:10]

    def moment(self, after_seconds: float = 0.0) -> str:
        """When the run began, or some seconds later, in UTC, as ISO 8601 has it; empty where it is not known."""
        if self.run.created is None:
            return ""
        try:
            when = datetime.datetime.fromtimestamp(self.run.created + after_seconds, datetime.UTC)
        except (ValueError, OverflowError, OSError):
            return ""
        return when.replace(microsecond=0).isoformat()

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, if it tells classes apart and they are known."""
        if self.preprocessing.classes:
            return self.preprocessing.classes
        named = self.model.id2label or {}
        in_order = [named.get(str(number)) for number in range(len(named))]
        if in_order and all(name is not None for name in in_order):
            return [str(name) for name in in_order]
        return next((data.classes for data in self.data.sets if data.classes), [])

    @property
    def report(self) -> ClassReport | None:
        """The confusion matrix with the names of its classes."""
        rows = self.claims.confusion
        if not rows or any(len(row) != len(rows) for row in rows) or any(n < 0 for row in rows for n in row):
            return None
        named = len(self.classes) == len(rows)
        names = self.classes if named else [str(number) for number in range(len(rows))]
        return ClassReport(tuple(names), tuple(map(tuple, rows)))

    def evaluation(self, claim: Claim) -> Evaluation:
        """How a number was measured."""
        known = self.claims.evaluations
        return known[claim.evaluation] if 0 <= claim.evaluation < len(known) else Evaluation()

    def measured_on(self, evaluation: Evaluation) -> DataSet | None:
        """The data that a number was measured on."""
        at = evaluation.data
        return self.data.sets[at] if at is not None and 0 <= at < len(self.data.sets) else None

    @property
    def dataset(self) -> str:
        """The name of the training's data in the run's settings; empty where there is none."""
        name = self.run.config.get("dataset")
        return name.strip() if isinstance(name, str) else ""

    @property
    def trained_on(self) -> list[DataSet]:
        return [data for data in self.data.sets if data.role == "train"]


def _outputs(bundle: Bundle, examples: Examples | None) -> list[list[float]]:
    """Scores for each example, where the output is one tensor of a row for each."""
    output = examples.output if examples else None
    if not isinstance(output, dict) or not isinstance(output.get("tensor"), str) or not examples:
        return []
    if files.EXAMPLE_TENSORS not in bundle:
        return []
    tensor = bundle.tensors(files.EXAMPLE_TENSORS).state.get(output["tensor"])
    if tensor is None or tensor.dim() != 2 or tensor.shape[0] != len(examples.examples):
        return []
    return [[float(score) for score in row] for row in tensor.float().tolist()]
