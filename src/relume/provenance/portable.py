"""What a bundle says of the machine it was packed on: nothing. Paths become what they are below the user's own folder."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from relume.provenance.secrets import process_redactor

_URL = re.compile(r"file://[^/\s]*(/[^\s'\"`<>|;,()\[\]{}]*)")
_PATH = re.compile(r"(?<![\w.:/\\~-])(?:~?/|[A-Za-z]:[\\/]|\\\\)[^\s'\"`<>|;,()\[\]{}]+")
"""An absolute path within a text; one with a space in it only where the whole text is the path."""


class Portable:
    """Makes texts fit to be shared.

    Args:
        folders: of the author's: a path below one of these is said from there; of any other only the last part.

    Example:
        >>> Portable(["/home/ann/project"]).text("saved to /home/ann/project/runs/a, by /usr/bin/python3")
        'saved to runs/a, by python3'
    """

    def __init__(self, folders: Iterable[str | os.PathLike[str]] = ()) -> None:
        known = {PurePath(folder) for folder in folders if str(folder)}
        self._folders = sorted((one for one in known if one.is_absolute()), key=lambda one: -len(one.parts))
        self._names = _names_of_the_machine()
        self._redactor = process_redactor()

    def text(self, text: str) -> str:
        """A text without absolute paths, the names of the machine and its user, and secrets."""
        if _is_path(text) and "\n" not in text:
            return self.path(text)
        found = _URL.sub(lambda match: self.path(match[1]), self._redactor.text(text))
        found = _PATH.sub(lambda match: self.path(match[0]), found)
        for name in self._names:
            found = name.sub("user", found)
        return found

    def path(self, path: str) -> str:
        """One path: below a known folder what it is from there, else its last part."""
        pure: PurePath = PureWindowsPath(path) if re.match(r"[A-Za-z]:[\\/]|\\\\", path) else PurePosixPath(path)
        for folder in self._folders:
            if pure.is_relative_to(folder):
                return pure.relative_to(folder).as_posix()
        return pure.name or "."

    def value(self, value: Any) -> Any:
        """A JSON value with all texts in it made so."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def arguments(self, arguments: Sequence[str]) -> list[str]:
        """A command line; also ``--data=/home/ann/images``."""
        made = []
        for argument in arguments:
            option, sign, rest = argument.partition("=")
            is_option = bool(sign) and option.startswith("-") and _is_path(rest)
            made.append(f"{option}={self.path(rest)}" if is_option else self.text(argument))
        return made


def _is_path(text: str) -> bool:
    return len(text) < 4096 and (PurePosixPath(text).is_absolute() or bool(re.match(r"[A-Za-z]:[\\/]|\\\\", text)))


def _names_of_the_machine() -> list[re.Pattern[str]]:
    """Names long enough to be nobody's but the machine's: a host that is called ``vm`` is every second word."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):
        user = ""
    names = {user, platform.node(), Path.home().name}
    return [re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in sorted(names) if len(name) > 4]
