"""Bundles that tests make, of any files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.models.tensorfile import tensorfile_parts
from relume.models.whole import model_document
from relume.share.archive import write_archive
from relume.share.documents import CODE, CODE_FOLDER, INPUT, MODEL, WEIGHTS, CodeFacts, Model, Preprocessing
from relume.share.weights import weights_digest


def packed(
    path: Path,
    model: nn.Module | None = None,
    *,
    document: Any = None,
    state: Mapping[str, torch.Tensor] | None = None,
    code: Mapping[str, str] | None = None,
    script: str = "",
    preprocessing: Preprocessing | None = None,
    files: Mapping[str, bytes] | None = None,
    **config: Any,
) -> Path:
    """Write a bundle of a model, or of a recipe and tensors."""
    held = dict(state if state is not None else model.state_dict() if model is not None else {})
    if document is None and model is not None:
        document = model_document(model)
    facts = Model(document=document, **{"weights_digest": weights_digest(held), **config})
    contents: dict[str, bytes] = {MODEL: facts.model_dump_json().encode(), **(files or {})}
    if code is not None:
        contents |= {CODE_FOLDER + name: text.encode() for name, text in code.items()}
        contents[CODE] = CodeFacts(script=script).model_dump_json().encode()
    if preprocessing is not None:
        contents[INPUT] = preprocessing.model_dump_json().encode()
    parts = {name: (lambda content=content: [content]) for name, content in contents.items()}
    if WEIGHTS not in parts:
        parts[WEIGHTS] = lambda: list(tensorfile_parts(held))
    write_archive(path, path.stem, parts, "0.1.0")
    return path


def recipe(builder: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A document with a recipe, as config.json has it."""
    made = {"builder": builder, "args": list(args), "kwargs": kwargs}
    return json.loads(json.dumps({"format": 1, "recipe": made, "training": False}))
