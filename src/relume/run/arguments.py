"""What a run is given, checked; and what it notes of its surroundings."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import torch

from relume.errors import ConfigurationError
from relume.monitor import jsonable
from relume.provenance.secrets import process_redactor

_MOST_TAGS = 100
_TAG = 100


def check_seed(seed: Any) -> int:
    """The seed as a number; raises ConfigurationError unless it is a whole number from 0 to 2**63 - 1."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= int(seed) < 2**63:
        raise ConfigurationError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}.")
    return int(seed)


def check_step(step: Any) -> int:
    if isinstance(step, (bool, torch.Tensor)) or not hasattr(step, "__index__") or not 0 <= int(step) < 2**63:
        raise ConfigurationError(f"step must be a whole number from 0 to 2**63 - 1, not {step!r}.")
    return int(step)


def check_epochs(count: Any) -> None:
    """Raise ConfigurationError unless ``count`` is a whole number of at least 1."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"epochs must be a whole number of at least 1, not {count!r}.")


def as_config(config: Any) -> dict[str, Any]:
    plain = jsonable(config) if config is not None else {}
    if not isinstance(plain, dict):
        raise ConfigurationError(
            f"config must be a mapping, a dataclass, a Namespace or a pydantic model, not {type(config).__name__}."
        )
    found: dict[str, Any] = process_redactor().config(plain)
    return found


def check_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """The tags, each once; raises ConfigurationError unless they are short texts of one line."""
    found = (tags,) if isinstance(tags, str) else tuple(tags) if isinstance(tags, Iterable) else None
    if found is None or len(found) > _MOST_TAGS:
        raise ConfigurationError(
            f"tags must be at most {_MOST_TAGS} words, such as ('baseline', 'lr-sweep'), not {tags!r:.100}."
        )
    for tag in found:
        if not isinstance(tag, str) or not tag.strip() or len(tag) > _TAG or not tag.isprintable():
            raise ConfigurationError(
                f"a tag must be a text of one line and at most {_TAG} characters, not {tag!r:.120}."
            )
    redactor = process_redactor()
    return tuple(dict.fromkeys(redactor.text(tag.strip()) for tag in found))


def check_notes(notes: str | None) -> str | None:
    if notes is None:
        return None
    if not isinstance(notes, str):
        raise ConfigurationError(f"notes must be a text, not {type(notes).__name__}.")
    return process_redactor().text(notes.encode("utf-8", "backslashreplace").decode())


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("relume", "torch", "torchvision", "timm", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
