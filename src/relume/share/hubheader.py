"""The metadata at the top of README.md, as Hugging Face's hub reads it.

Format: https://huggingface.co/docs/hub/model-cards and its modelcard.md. What the hub would refuse is left out: numbers that
are not finite, data sets and models that are no names of the hub.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from relume.share.described import Documents
from relume.share.documents import Claim, DataSet
from relume.share.escaping import yaml
from relume.share.licences import hub_licence
from relume.text import printable

_HUB_DATA = {
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "mnist": "ylecun/mnist",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
}
_HUB_METRICS = {
    "accuracy": "accuracy",
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
    "mse": "mse",
    "mae": "mae",
    "perplexity": "perplexity",
    "auroc": "roc_auc",
    "roc_auc": "roc_auc",
    "iou": "mean_iou",
    "bleu": "bleu",
    "rouge": "rouge",
    "wer": "wer",
    "cer": "cer",
}
_TASKS = {"image-classification": "Image Classification", "other": "Other"}
_HUB_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?/[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
)
_HUB_MODEL = re.compile(r"https://huggingface\.co/([^/?#]+/[^/?#]+)(?:[/?#].*)?")
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]+")


def header(documents: Documents) -> str:
    """The header with its rules, ``---`` above and below."""
    known = {name: value for name, value in metadata(documents).items() if value}
    return f"---\n{yaml(known)}---\n"


def metadata(documents: Documents) -> dict[str, Any]:
    """What the header says, in the hub's names; what is not known is empty."""
    return {
        **_licence(documents.run.licence),
        "library_name": "relume",
        "pipeline_tag": task(documents) if task(documents) != "other" else "",
        "tags": _tags(documents),
        "datasets": _unique(filter(None, map(_hub_data, documents.data.sets))),
        "metrics": _unique(filter(None, (_hub_metric(claim.name) for claim in documents.claims.claims))),
        "base_model": _base_models(documents),
        "model-index": _model_index(documents),
    }


def task(documents: Documents) -> str:
    """The hub's name of what the model does; ``"other"`` where it has none or it is not known."""
    tells_apart = documents.classes or documents.claims.confusion
    return "image-classification" if documents.preprocessing.kind == "image" and tells_apart else "other"


def stated(documents: Documents) -> list[Claim]:
    """The claims; of a number that was measured twice, the one at packing comes first."""
    places = {"packing": 0, "training": 1}
    return sorted(documents.claims.claims, key=lambda claim: places[documents.evaluation(claim).where])


def stated_once(documents: Documents) -> list[Claim]:
    """The same without those recorded in training that were measured again at packing."""
    first: dict[tuple[str, int | None], Claim] = {}
    for claim in stated(documents):
        first.setdefault((claim.name.rpartition("/")[2], documents.evaluation(claim).data), claim)
    return list(first.values())


def _licence(licence: str) -> dict[str, str]:
    if not licence.strip():
        return {}
    name = hub_licence(licence)
    if name != "other":
        return {"license": name}
    return {"license": "other", "license_name": _slug(licence) or "other"}


def _tags(documents: Documents) -> list[str]:
    known = ["relume", "pytorch", "safetensors"]
    return _unique([*known, *(printable(tag, 60).strip() for tag in documents.run.tags[:20] if tag.strip())])


def _base_models(documents: Documents) -> list[str]:
    names = []
    for ancestor in documents.lineage.ancestors:
        if ancestor.kind != "weights":
            continue
        on_hub = _HUB_MODEL.fullmatch(ancestor.url)
        name = on_hub[1] if on_hub else ancestor.name
        if _is_hub_name(name) and not name.startswith("torchvision/"):
            names.append(name)
    return _unique(names)


def _model_index(documents: Documents) -> list[dict[str, Any]]:
    by_data: dict[Any, list[Claim]] = {}
    for claim in stated_once(documents):
        if math.isfinite(claim.value):
            by_data.setdefault(documents.evaluation(claim).data, []).append(claim)
    results = [_result(documents, claims) for claims in by_data.values()]
    return [{"name": documents.name, "results": results}] if results else []


def _result(documents: Documents, claims: list[Claim]) -> dict[str, Any]:
    data = documents.measured_on(documents.evaluation(claims[0])) or DataSet(role="")
    name = printable(data.name or data.role or "unknown", 100)
    dataset = {"name": name, "type": _hub_data(data) or _slug(name) or "unknown", "split": printable(data.split, 60)}
    kind = task(documents)
    return {
        "task": {"type": kind, "name": _TASKS[kind]},
        "dataset": {key: value for key, value in dataset.items() if value},
        "metrics": [_metric(documents, claim) for claim in claims],
    }


def _metric(documents: Documents, claim: Claim) -> dict[str, Any]:
    where = "as recorded in training" if documents.evaluation(claim).where == "training" else "measured when packed"
    name = printable(claim.name, 80)
    return {
        "type": _hub_metric(claim.name) or _slug(name.rpartition("/")[2]) or "metric",
        "value": claim.value,
        "name": f"{name}, {where}",
    }


def _hub_metric(name: str) -> str:
    return _HUB_METRICS.get(name.rpartition("/")[2].strip().lower(), "")


def _hub_data(data: DataSet) -> str:
    if data.kind == "named" and data.name in _HUB_DATA:
        return _HUB_DATA[data.name]
    return data.name if _is_hub_name(data.name) and data.kind == "named" else ""


def _is_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and ".." not in name and "--" not in name


def _slug(text: str) -> str:
    return _NOT_OF_A_NAME.sub("-", text.lower()).strip("-")[:60].strip("-")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
