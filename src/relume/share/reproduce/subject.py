"""The bundle that is checked, and what its stages hand on to each other."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from torch import nn

from relume.errors import RelumeError
from relume.share import documents
from relume.share.bundle import Bundle
from relume.share.documents import Claims, Data, Environment, Examples, Model, Preprocessing, RunFacts
from relume.share.reproduce.verdicts import Row, Verdict

_Document = TypeVar("_Document", bound=BaseModel)
_MAX_REASON = 400


@dataclass
class Subject:
    """A bundle whose digests were right, and what was found out about it so far.

    Attributes:
        trust: whether code in the bundle may run.
        data: where the data are: a path, or a dataset that is used as it is.
        here: this environment.
        models: the model, by the way it was opened: ``recipe``, ``code``, ``graph``. Filled by the stage of the weights.
        datasets: what was opened and is the author's data, by its number in ``data.json``. Filled by the stage of the data.
        problems: why a data set is not among them.
        measured: what the stage of the metrics measured, by the number of the evaluation.
        failed: why one of its metrics could not be computed, by that number and the metric's name.
    """

    bundle: Bundle
    trust: bool
    data: Any
    here: Environment
    models: dict[str, nn.Module] = field(default_factory=dict)
    datasets: dict[int, Any] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    measured: dict[int, Any] = field(default_factory=dict)
    failed: dict[tuple[int, str], str] = field(default_factory=dict)

    @property
    def model(self) -> nn.Module | None:
        """The model, through the way that is nearest to the author's."""
        return next((self.models[way] for way in ("recipe", "code", "graph") if way in self.models), None)

    @property
    def path(self) -> Path | None:
        """The folder or file of the data, if a path was given."""
        return Path(self.data).expanduser() if isinstance(self.data, (str, os.PathLike)) else None

    def document(self, member: str, kind: type[_Document]) -> _Document:
        """A document of the bundle.

        Raises:
            BundleError: there is none, or it is not understood.
        """
        return self.bundle.document(member, kind)

    def config(self) -> Model:
        return self.document(documents.MODEL, Model)

    def preprocessing(self) -> Preprocessing:
        return self.document(documents.INPUT, Preprocessing)

    def claims(self) -> Claims:
        return self.document(documents.CLAIMS, Claims)

    def data_sets(self) -> Data:
        return self.document(documents.DATA, Data)

    def samples(self) -> set[int]:
        """Which data sets are samples in the bundle itself, whatever they are called."""
        from relume.share.sampling import ROLE

        try:
            return {number for number, one in enumerate(self.data_sets().sets) if one.role == ROLE}
        except RelumeError:
            return set()

    def examples(self) -> Examples:
        return self.document(documents.EXAMPLES, Examples)

    def run(self) -> RunFacts:
        return self.document(documents.RUN, RunFacts)

    def environment(self) -> Environment:
        return self.document(documents.ENVIRONMENT, Environment)


def reason(error: BaseException) -> str:
    """An error as a reason: relume's own say what to do, of any other its kind tells."""
    text = str(error) if isinstance(error, RelumeError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "…"


def unchecked(claim: str, why: str | BaseException, **fields: Any) -> Row:
    """CANNOT CHECK, and why."""
    text = reason(why) if isinstance(why, BaseException) else why
    return Row(claim=claim, verdict=Verdict.UNCHECKED, why=text, **fields)
