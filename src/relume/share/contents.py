"""All that goes into a bundle, put together step by step."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from torch import nn

from relume.errors import BundleError, ConfigurationError, DataError, DownloadError, MissingPackageError, RelumeError
from relume.models.tensorfile import tensorfile_parts
from relume.share import claims as recorded_claims
from relume.share import documents as named
from relume.share.ancestry import lineage
from relume.share.archive import Parts, measured
from relume.share.called import with_recipe
from relume.share.card import card_files
from relume.share.crate import crate
from relume.share.data import Given, given_data, named_data
from relume.share.described import Documents
from relume.share.examples import Chosen, chosen, made_up, written
from relume.share.gather import Source, environment_facts, image_preprocessing, model_facts, preprocessing_facts
from relume.share.manifest import Member
from relume.share.measuring import Progress, batch_size_for, environment, measure
from relume.share.metrics import Wanted, wanted
from relume.share.network import Network
from relume.share.pictures import drawn
from relume.share.sampling import sample_of
from relume.share.sources import Sources, sources
from relume.share.whole import whole_checkpoint
from relume.ui.report import make

_REPORT_IMAGES, _REPORT_MB = 32, 5.0
_NUMBERS = re.compile(r"\[\n([-+.\deE,\s]+?)\n\s*\]")
"""A list of nothing but numbers, which is written on one line. Texts in JSON hold no line ends."""


class Contents:
    """The files of a bundle.

    Args:
        source: the checkpoint.
        facts: run.json of the bundle.
        instance: a module of the right class, where the recipe is not known.
        trust: run the definition of the model's class out of the run's code.
        code: whether the run's code goes in.
        progress: called while numbers are measured.

    Attributes:
        files: contents by path.
        claims: what is claimed.
        missing: what is not in it, and how to have it there.
        notes: what else its author should know.
    """

    def __init__(
        self,
        source: Source,
        facts: named.RunFacts,
        instance: nn.Module | None,
        *,
        trust: bool,
        code: bool,
        progress: Progress | None,
    ) -> None:
        self.facts, self._progress = facts, progress
        self.files: dict[str, Parts] = {}
        self.missing: list[str] = []
        self.notes: list[str] = []
        is_code_needed = code or source.document is None or trust
        self._code = sources(source) if is_code_needed else Sources()
        self._why_no_recipe = ""
        if source.document is None:
            source, self._why_no_recipe = with_recipe(source, instance, self._code, trust=trust)
        self.source, self.model = source, model_facts(source)
        self.preprocessing = preprocessing_facts(source)
        self.data = named.Data()
        self.claims = named.Claims()
        self.examples: named.Examples | None = None
        self.members: dict[str, Member] = {}
        self._raw: dict[str, bytes] = {}
        self._scores: list[list[float]] = []
        self._given: Given | None = None
        self._asked = Wanted()
        self._chosen: Chosen | None = None
        self._is_code_wanted = code
        self._network = Network(source, instance, self._code, trust=trust)

    def add_weights(self) -> None:
        """The weights, mapped from the store: they are written as they are read."""
        held = list(tensorfile_parts(self.source.state, self.source.metadata()))
        self.files[named.WEIGHTS] = lambda: held
        if self.source.odd:
            self.notes.append(f"{', '.join(self.source.odd)[:200]} of the state_dict is no tensor and is left out")

    def add_data(self, data: Any, evaluate: bool | None) -> None:
        """Which data the numbers are of; opened here where it is needed."""
        known = named_data(self.source)
        if data is None and evaluate is False:
            self.data = named.Data(sets=[known] if known is not None else [])
            return
        try:
            self._given = given_data(self.source, data)
        except (DataError, DownloadError, MissingPackageError, ConfigurationError) as error:
            if data is not None or evaluate:
                raise
            self.missing.append(f"numbers measured anew, and the data's fingerprint: {_said(self.source, error)}")
        if self._given is None:
            if evaluate:
                raise DataError(
                    "what the numbers are measured on is not known: give data= (--data), or config={'dataset': 'fashion-mnist'} "
                    "in the run."
                )
            if known is None and not self.missing:
                self.missing.append(
                    "which data it was measured on: the run's config names no 'dataset'; give --data (data=)"
                )
            self.data = named.Data(sets=[known] if known is not None else [])
            return
        self.data = named.Data(sets=[self._given.facts])
        self._learn_from_data(self._given)

    def _learn_from_data(self, given: Given) -> None:
        """What the run did not say of its inputs and classes, its data does."""
        classes = self.preprocessing.classes or given.facts.classes
        if self.preprocessing.kind == "unknown" and given.prepare is not None:
            self.preprocessing = image_preprocessing(given.prepare, classes)
        elif self.preprocessing.kind == "unknown":
            self.preprocessing = self.preprocessing.model_copy(update={"kind": "tensors", "classes": classes})
        if classes and self.model.id2label is None:
            ids = {str(label): name for label, name in enumerate(classes)}
            update = {"id2label": ids, "label2id": {name: label for label, name in enumerate(classes)}}
            self.model = self.model.model_copy(update=update)

    def measure(self, loss: Any, metrics: Mapping[str, Any] | None, evaluate: bool | None) -> None:
        """The numbers measured anew; those that the run recorded where they are others, or cannot be measured."""
        self.claims = recorded_claims.recorded(self.source, 0 if self.data.sets else None)
        asked = self._asked = wanted(self.source, loss, metrics, self.source.metrics)
        self.notes += asked.notes
        if evaluate is False or self._given is None or not asked.kinds:
            if evaluate and not asked.kinds:
                raise ConfigurationError(
                    "there is nothing to measure: the run recorded no metric that relume knows. Name some: "
                    "metrics={'accuracy': 'accuracy'}, loss='cross entropy'."
                )
            return
        model = self._network.model
        if model is None:
            if evaluate:
                raise BundleError(
                    f"the model cannot be measured, because it cannot be built here: {self._network.problem}"
                )
            return
        self._claim(model, self._given, 0, asked)

    def _claim(self, model: nn.Module, given: Given, place: int, asked: Wanted, prefix: str = "") -> None:
        evaluation = named.Evaluation(
            data=place,
            where="packing",
            metrics={f"{prefix}{name}": kind for name, kind in asked.kinds.items()},
            batch_size=batch_size_for(given.dataset[0]),
            environment=environment(),
        )
        found = measure(
            model,
            given.dataset,
            evaluation,
            self.preprocessing.classes,
            collate=given.collate,
            functions=asked.functions,
            progress=self._progress,
        )
        number = len(self.claims.evaluations)
        self.claims.evaluations.append(evaluation)
        for name, value in sorted(found.values.items()):
            if not math.isfinite(value):
                self.notes.append(f"{name} is {value} and is not claimed")
                continue
            self.claims.claims.append(named.Claim(name=name, value=value, evaluation=number))
            self._compare(name, value)
        if place == 0:
            self.claims = self.claims.model_copy(update={"confusion": found.confusion})

    def _compare(self, name: str, value: float) -> None:
        """What the run recorded itself is the same number, in other roundings; or another, and then both are claimed."""
        recorded = [
            claim
            for claim in self.claims.claims
            if claim.name == name and self.claims.evaluations[claim.evaluation].where == "training"
        ]
        for claim in recorded:
            if abs(claim.value - value) <= claim.tolerance:
                self.claims.claims.remove(claim)
                continue
            self.notes.append(
                f"{name} was {claim.value:.6g} in training, and is {value:.6g} measured here: both are in the bundle. "
                "Other data, another loss or another device than in training do that"
            )

    def add_examples(self, count: int) -> None:
        """Examples with the outputs of the packed weights."""
        if not count:
            return
        model = self._network.model
        if model is None:
            self.missing.append(f"examples with outputs, numbers measured anew: {self._network.problem}")
            return
        given = self._given
        if given is not None:
            self._chosen = chosen(given.dataset, count, given.collate, self._prepare())
        else:
            self._chosen = made_up(self.preprocessing, count)
        if self._chosen is None:
            self.missing.append("examples with outputs: there is no data to take them from; give --data (data=)")
            return
        if given is not None and self.preprocessing.kind == "image" and not self._chosen.raw:
            self.preprocessing = self.preprocessing.model_copy(update={"kind": "tensors"})
            self.notes.append(
                "raw pictures do not become the inputs by a transform that relume knows: inputs are packed"
            )
        self.examples, files, self._scores = written(self._chosen, model)
        self._raw = self._chosen.raw
        self.files |= files

    def _prepare(self) -> Any:
        from relume.datasets import ToTensor

        return ToTensor.of_config(self.preprocessing.settings) if self.preprocessing.kind == "image" else None

    def add_sample(self, count: int) -> None:
        """The first samples of the data, and the numbers of the model on them."""
        if not count:
            return
        if self._given is None:
            raise DataError("sample= takes samples of the data, and it is not known, or not here: give data= (--data).")
        facts, dataset, files = sample_of(self._given, count)
        self.files |= files
        self.data = named.Data(sets=[*self.data.sets, facts])
        if self._network.model is not None and self._asked.kinds:
            own = Given(facts, dataset)
            self._claim(self._network.model, own, len(self.data.sets) - 1, self._asked, prefix="sample/")

    def add_graph(self, *, is_wanted: bool) -> None:
        """The model as a graph without its weights, where it can be had."""
        why = self._add_graph() if is_wanted else "its author left it out"
        self.model = self.model.model_copy(update={"has_graph": not why, "why_no_graph": why})
        if why and is_wanted:
            self.missing.append(f"a graph, which opens without the model's class: {why}")
        if why and (self.model.document is None):
            raise BundleError(
                "nobody could open this bundle: how its model was built is not known, and there is no graph. "
                f"{self._why_no_recipe}. Or pack it where the model is, at the end of its script: relume.pack(result, data=...), "
                "relume.pack(..., model=model, data=...). Next time build it by relume.build(Net, ...) in place of Net(...)."
                + ("" if self._network.problem else f" No graph: {why}.")
            )

    def _add_graph(self) -> str:
        """Why there is none; empty where there is."""
        model = self._network.model
        if model is None:
            return self._network.problem
        if self._chosen is None:
            inputs = made_up(self.preprocessing, 2)
            if inputs is None:
                return "there are no example inputs to trace it with; give --data (data=)"
        else:
            inputs = self._chosen
        try:
            from relume.models import exported

            found = exported.graph_files(model, inputs.kwargs or inputs.args)
        except RelumeError as error:
            return _said(self.source, error)
        self.files |= {
            path if path.startswith(named.GRAPH_FOLDER) else f"{named.GRAPH_FOLDER}{path}": held(content)
            for path, content in found.items()
        }
        return ""

    def add_code(self) -> None:
        """The source tree."""
        if not self._is_code_wanted:
            self.missing.append("code: it was not wanted")
            return
        found = self._code
        if found.problem:
            self.missing.append(f"code: {found.problem}")
        if found.facts is None:
            return
        self.files |= {path: held(content) for path, content in found.files.items()}
        self.files[named.CODE] = held(text(found.facts))
        if found.facts.left_out:
            shown = "; ".join(found.facts.left_out[:3])
            more = f" and {len(found.facts.left_out) - 3} more" if len(found.facts.left_out) > 3 else ""
            self.notes.append(f"the code is not exactly what ran: {shown}{more} (all in code.json)")

    def add_report(self, *, is_wanted: bool) -> None:
        """The run as a page, to which the card links."""
        if not is_wanted or self.source.folder is None:
            return
        try:
            made = make(
                [self.source.folder], title=self.facts.title, images=_REPORT_IMAGES, max_mb=_REPORT_MB, commands=False
            )
        except (RelumeError, OSError, ValueError, ArithmeticError) as error:  # nothing of the model depends on it
            self.missing.append(f"a report of the run as a page: {_said(self.source, error)}")
            return
        self.files[named.REPORT] = held(made.content)

    def add_checkpoint(self) -> None:
        """The whole checkpoint, to train on."""
        self.files |= whole_checkpoint(self.source)

    def add_documents(self, name: str, version: str) -> None:
        """The JSON files, and what is written from them: the card with its pictures, and the metadata for archives."""
        environment_, lineage_ = environment_facts(self.source), lineage(self.source)
        documents: dict[str, BaseModel | None] = {
            named.MODEL: self.model,
            named.INPUT: self.preprocessing,
            named.RUN: self.facts,
            named.CLAIMS: self.claims,
            named.DATA: self.data,
            named.ENVIRONMENT: environment_,
            named.LINEAGE: lineage_,
            named.EXAMPLES: self.examples,
        }
        self.files |= {path: held(text(document)) for path, document in documents.items() if document is not None}
        described = Documents(
            name=name,
            relume=version,
            model=self.model,
            preprocessing=self.preprocessing,
            run=self.facts,
            claims=self.claims,
            data=self.data,
            lineage=lineage_,
            environment=environment_,
            examples=self.examples,
            code=self._code.facts if self._is_code_wanted else None,
            raw=self._raw,
            outputs=self._scores,
        )
        self._measure_files()
        sizes = {path: member.size_bytes for path, member in self.members.items()}
        self.files |= {path: held(content) for path, content in card_files(described, sizes).items()}
        self._measure_files()
        try:
            self.files[named.CRATE] = held(crate(described, self.members))
        except MissingPackageError as error:
            self.missing.append(f"{named.CRATE}: {error}")
        if not any(path.startswith(named.PICTURES_FOLDER) for path in self.files):
            try:
                drawn(described)
            except MissingPackageError as error:
                self.missing.append(f"pictures of the card: {error}")

    def _measure_files(self) -> None:
        """Sizes and digests of what is there, each read once."""
        for path, parts in self.files.items():
            if path not in self.members:
                self.members[path] = measured(path, parts)


def _said(source: Source, error: Exception) -> str:
    return source.portable.text(" ".join(str(error).split()))[:400]


def text(document: BaseModel) -> bytes:
    """A document as it stands in the bundle: one form for the same content."""
    content = _finite(document.model_dump(mode="json"))
    whole = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    short = _NUMBERS.sub(lambda match: "[" + " ".join(match[1].split()) + "]", whole)
    return short.encode(errors="backslashreplace")


def held(content: bytes) -> Parts:
    """A small file that is in memory."""
    return lambda: [content]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they stand there as texts."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
