"""What a request asks for, checked: the runs, the numbers and the words in its address and its body."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request

from relume.errors import ConfigurationError, UnknownNameError
from relume.monitor.record import is_run
from relume.text import printable

BODY_LIMIT_BYTES = 64 * 1024
_RUNS_LIMIT = 1000
_MOST_STEP = 2**62


class Asked:
    """A request, over the runs below ``root``.

    Raises:
        UnknownNameError: by its methods, where a run does not exist.
        ConfigurationError: by its methods, where a value makes no sense.
    """

    def __init__(self, root: Path, request: Request, body: bytes = b"") -> None:
        self.root = root
        self._request = request
        self._body = body

    def run(self) -> Path:
        """The folder of the run in the path."""
        return self._folder(self.word("run"))

    def runs(self) -> list[Path]:
        """The folders of the runs in the query, each once; one that has gone since the page was drawn is left out."""
        names = list(dict.fromkeys(self._request.query_params.getlist("run")))
        if len(names) > _RUNS_LIMIT:
            raise ConfigurationError(f"{len(names)} runs are more than can be asked for at once ({_RUNS_LIMIT}).")
        found = [folder for name in names if (folder := _run_below(self.root, name)) is not None]
        if names and not found:
            raise UnknownNameError(f"there is no run {printable(names[0], 100)!r} here.")
        return found

    def _folder(self, name: str) -> Path:
        folder = _run_below(self.root, name)
        if folder is None:
            raise UnknownNameError(f"there is no run {printable(name, 100)!r} here.")
        return folder

    def word(self, name: str) -> str:
        """A part of the path."""
        return str(self._request.path_params[name])

    def text(self, name: str) -> str | None:
        """A text of the query; None where it is not there, or empty."""
        return self._request.query_params.get(name) or None

    def needed(self, name: str) -> str:
        """A text of the query that may be empty (there are metrics without a name), and must be there."""
        value = self._request.query_params.get(name)
        if value is None:
            raise ConfigurationError(f"{name}= is missing in the address.")
        return value

    def all(self, name: str) -> list[str]:
        """All texts of this name in the query; at most as many as runs can be asked for."""
        values = self._request.query_params.getlist(name)
        if len(values) > _RUNS_LIMIT:
            raise ConfigurationError(
                f"{len(values)} times {name}= is more than can be asked for at once ({_RUNS_LIMIT})."
            )
        return values

    def steps(self, name: str) -> list[int]:
        """All steps of this name in the query; -1 is the one before the first."""
        return [_whole(name, text, -1, _MOST_STEP) for text in self.all(name)]

    def flag(self, name: str) -> bool:
        return self.text(name) not in (None, "0", "false")

    def number(self, name: str) -> float | None:
        """A finite number of the query."""
        text = self.text(name)
        return None if text is None else _number(name, text)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number of the query between two bounds, both included."""
        text = self.text(name)
        return None if text is None else _whole(name, text, least, most)

    def one_of(self, name: str, words: Sequence[str]) -> str:
        """One of some words of the query; by default the first."""
        value = self.text(name) or words[0]
        if value not in words:
            raise ConfigurationError(f"{name}={printable(value, 40)}: there are {', '.join(words)}.")
        return value

    def sent(self) -> dict[str, Any]:
        """The JSON object that was sent."""
        try:
            value = json.loads(self._body)
        except (ValueError, RecursionError):
            raise ConfigurationError("what was sent is no JSON.") from None
        if not isinstance(value, dict):
            raise ConfigurationError("what was sent is no JSON object.")
        return value


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigurationError(f"{name}={printable(text, 40)} is no finite number.")
    return value


def _whole(name: str, text: str, least: int, most: int) -> int:
    value = _number(name, text)
    if not (value.is_integer() and least <= value <= most):
        raise ConfigurationError(f"{name}={printable(text, 40)} is no whole number from {least} to {most}.")
    return int(value)


def _run_below(root: Path, name: str) -> Path | None:
    """The folder of a run, which lies right below the root.

    A link to a folder elsewhere counts only where it leads to a run: who owns the root has put it there.
    """
    folder = root / name
    is_odd = name in ("", ".", "..") or any(sign in name for sign in "/\\\0") or len(name) > 255
    if is_odd or folder.parent != root or folder.name != name:
        return None
    try:
        has_lost_its_record = not folder.is_symlink() and (folder / "journal").is_dir()
        return folder if is_run(folder) or has_lost_its_record else None
    except (OSError, ValueError):
        return None
