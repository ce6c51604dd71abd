"""Names and params as MLflow allows them."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from relume.trackers.contents import flattened, plain

_MOST_CHARACTERS, _PARAM_CHARACTERS = 250, 6_000
_NOT_ALLOWED = re.compile(r"[^\w.\- :/]")


@lru_cache(maxsize=20_000)
def allowed_name(name: str) -> str:
    """A name for MLflow: letters, digits and ``_-. :/``, no path that leads elsewhere, at most 250 characters.

    One that had to be changed gets a mark, so that two names stay two.

    Example:
        >>> allowed_name("val/top5 accuracy"), allowed_name("50%"), allowed_name("50!")
        ('val/top5 accuracy', '50__0fd801', '50__8306e9')
    """
    clean = _NOT_ALLOWED.sub("_", plain(name))
    if posixpath.normpath(clean) != clean or clean.startswith(("/", "..")) or clean in ("", "."):
        clean = clean.replace("/", "_").strip(". ") or "_"
    if clean == name and len(name) <= _MOST_CHARACTERS:
        return name
    mark = hashlib.blake2s(name.encode("utf-8", "surrogatepass"), digest_size=3).hexdigest()
    return f"{clean[: _MOST_CHARACTERS - 7]}_{mark}"


def params_of(config: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """A config as params, flat, and the names of those whose values were too long and were cut."""
    params, cut = {}, []
    for name, value in flattened(config).items():
        allowed = allowed_name(name)
        params[allowed], was_cut = as_param(value)
        if was_cut:
            cut.append(allowed)
    return params, cut


def as_param(value: Any) -> tuple[str, bool]:
    """A value as a param's text, and whether it was cut.

    Example:
        >>> as_param(0.1), as_param([1, "a"]), as_param(None), len(as_param("x" * 7000)[0])
        (('0.1', False), ('[1, "a"]', False), ('None', False), 6000)
    """
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, (list, dict)) else str(value)
    return plain(text)[:_PARAM_CHARACTERS], len(text) > _PARAM_CHARACTERS
