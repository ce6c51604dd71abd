"""What the weights come from: pretrained ones, and runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relume.checkpoint.hashing import hash_bytes
from relume.errors import RelumeError
from relume.share.documents import Ancestor, Lineage
from relume.share.gather import Source
from relume.share.weights import weights_digest

_CODE_ONLY = "the library's code is BSD-3-Clause; of its weights it says nothing"


def lineage(source: Source) -> Lineage:
    """The ancestors that the run tells of: ``weights`` of its configuration, and the run that it began from."""
    return Lineage(ancestors=[*_weights(source), *_run(source)])


def _run(source: Source) -> Iterator[Ancestor]:
    origin = source.record.lineage if source.record is not None else None
    if not isinstance(origin, dict):
        return
    name, checkpoint = str(origin.get("run") or "a run"), str(origin.get("checkpoint") or "")
    detail = f"its checkpoint {source.portable.text(checkpoint)}" if checkpoint else ""
    try:
        digest = weights_digest(Source.find(f"{name}@{checkpoint}", source.store.root, source.model).state)
    except (RelumeError, OSError):
        digest = ""
    yield Ancestor(kind="run", name=name, digest=digest, detail=detail)


def _weights(source: Source) -> Iterator[Ancestor]:
    weights = source.config.get("weights")
    if not isinstance(weights, str) or not weights:
        return
    model = str(source.config.get("model") or "")
    package, _, name = model.partition("/")
    file = source.directory / os.path.expanduser(weights)  # noqa: PTH111 - it may be no path
    if _is_file(file):
        detail = f"a file for {model}" if model else "a file"
        yield Ancestor(name=source.portable.text(weights), digest=_digest(file), detail=detail)
    elif "@" in weights or "/" in weights:
        yield _of_run(source, weights)
    elif package == "torchvision":
        yield _of_torchvision(model, name, weights)
    elif package == "timm":
        yield _of_timm(model, name, weights)
    else:
        yield Ancestor(name=f"{model} {weights}".strip())


def _of_run(source: Source, weights: str) -> Ancestor:
    try:
        found = Source.find(weights, source.store.root)
        return Ancestor(kind="run", name=source.portable.text(weights), digest=weights_digest(found.state))
    except (RelumeError, OSError):
        return Ancestor(kind="run", name=source.portable.text(weights))


def _of_torchvision(model: str, name: str, weights: str) -> Ancestor:
    try:
        from torchvision import models

        entry: Any = models.get_model_weights(name)[weights.upper() if weights.lower() == "default" else weights]
    except (ImportError, KeyError, ValueError):
        return Ancestor(name=f"{model} {weights}", licence="")
    file = _hub_folder() / entry.url.rsplit("/")[-1]
    return Ancestor(name=f"{model} {entry.name}", url=entry.url, digest=_digest(file), detail=_CODE_ONLY)


def _of_timm(model: str, name: str, weights: str) -> Ancestor:
    try:
        import timm

        chosen = name if weights == "default" else f"{name.split('.')[0]}.{weights}"
        config: Any = timm.models.get_pretrained_cfg(chosen)
    except (ImportError, RuntimeError):
        config = None
    if config is None:
        return Ancestor(name=f"{model} {weights}")
    hub = str(getattr(config, "hf_hub_id", "") or "")
    url = f"https://huggingface.co/{hub}" if hub else str(getattr(config, "url", "") or "")
    return Ancestor(name=f"{model} {config.tag or weights}", url=url, licence=str(getattr(config, "license", "") or ""))


def _hub_folder() -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    """blake3 of a file's bytes; empty where it is not here any more."""
    from relume.models.archive import map_file

    try:
        return hash_bytes(memoryview(map_file(path))) if path.is_file() and path.stat().st_size else ""
    except (OSError, RelumeError):
        return ""
