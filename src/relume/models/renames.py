"""What ``rename=`` and ``only=`` say, applied to names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from relume.errors import ConfigurationError, closest

Rename = Mapping[str, str] | Callable[[str], str | None] | Sequence[tuple[str, str]] | Literal["auto"] | None
"""See `relume.load_weights`."""


def renamed(rename: Rename, names: Iterable[str]) -> dict[str, str]:
    """Each name and what ``rename`` makes of it; one for which a function gives None is left out.

    Raises:
        ConfigurationError: ``rename`` is of no known kind, a part of it fits no name, or two names become one.

    Example:
        >>> renamed({"backbone": "features"}, ["backbone.0.weight", "head.weight"])
        {'backbone.0.weight': 'features.0.weight', 'head.weight': 'head.weight'}
    """
    names = list(names)
    if rename is None or (isinstance(rename, str) and rename == "auto"):
        return {name: name for name in names}
    if isinstance(rename, Mapping):
        result = _by_table(rename, names)
    elif isinstance(rename, Sequence) and not isinstance(rename, (str, bytes)):
        result = _by_patterns(rename, names)
    elif callable(rename):
        result = _by_function(rename, names)
    else:
        raise ConfigurationError(
            f"rename={rename!r:.80}: give 'auto', a dict of names or prefixes, a list of (regular expression, "
            "replacement), or a function from name to name."
        )
    return _each_once(result)


def _by_table(table: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in table.items()):
        raise ConfigurationError(f"rename={dict(table)!r:.80}: a dict maps names or prefixes to others, both as text.")
    used: set[str] = set()
    keys = sorted(table, key=len, reverse=True)
    result = {}
    for name in names:
        key = next((key for key in keys if _begins(name, key)), None)
        used |= {key} if key is not None else set()
        result[name] = name if key is None else _replaced(name, key, table[key])
    for key in table:
        if key not in used:
            raise ConfigurationError(
                f"rename: no tensor of the source is called {key!r} or begins with it: {closest(key, _prefixes(names))}"
            )
    return result


def _begins(name: str, key: str) -> bool:
    return name == key or name.startswith(key if key.endswith(".") or not key else f"{key}.")


def _replaced(name: str, key: str, value: str) -> str:
    """``"a" -> ""`` takes the dot as well: no name begins with one."""
    rest = name[len(key) :]
    return rest[1:] if not value and rest.startswith(".") else value + rest


def _by_patterns(patterns: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, str]:
    result = {name: name for name in names}
    for pair in patterns:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise ConfigurationError(f"rename: {pair!r:.80} in the list is no (regular expression, replacement).")
        pattern, replacement = pair
        try:
            after = {name: re.subn(pattern, replacement, now) for name, now in result.items()}
        except (re.error, IndexError) as error:
            raise ConfigurationError(f"rename: ({pattern!r}, {replacement!r}) is no substitution: {error}.") from None
        if not any(count for _, count in after.values()):
            shown = ", ".join(list(result.values())[:5]) or "none"
            raise ConfigurationError(f"rename: the pattern {pattern!r} is found in no name. Names there: {shown}, …")
        result = {name: new for name, (new, _) in after.items()}
    return result


def _by_function(function: Callable[[str], str | None], names: Sequence[str]) -> dict[str, str]:
    result = {}
    for name in names:
        try:
            new = function(name)
        except Exception as error:
            kind = type(error).__name__
            raise ConfigurationError(f"rename: the function fails for {name!r:.200} with {kind}: {error}.") from error
        if new is not None and not isinstance(new, str):
            raise ConfigurationError(
                f"rename: the function gave {new!r:.60} for {name!r}: it gives the new name, or None to leave it out."
            )
        if new is not None:
            result[name] = new
    return result


def _each_once(result: dict[str, str]) -> dict[str, str]:
    twice = [new for new, count in Counter(result.values()).items() if count > 1]
    if twice:
        froms = ", ".join(repr(name) for name, new in result.items() if new == twice[0])
        raise ConfigurationError(f"rename: {froms} would all be called {twice[0]!r}. Give each its own name.")
    return result


def chosen(only: str | Iterable[str] | None, names: Iterable[str]) -> list[str]:
    """The names that ``only`` means, all for None.

    Args:
        only: a pattern of `fnmatch`, or several; one that is a module's name means all that is in it.

    Raises:
        ConfigurationError: a pattern fits no name; the message lists the closest.

    Example:
        >>> chosen("features", ["features.0.weight", "head.weight"])
        ['features.0.weight']
    """
    names = list(names)
    if only is None:
        return names
    patterns = [only] if isinstance(only, str) else list(only)
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(f"only={only!r:.80}: give a pattern such as 'features.*', or several.")
    for pattern in patterns:
        if not any(is_meant(name, [pattern]) for name in names):
            near = closest(pattern.rstrip(".*"), _prefixes(names))
            raise ConfigurationError(f"only: no tensor of the model fits {pattern!r}: {near}")
    return [name for name in names if is_meant(name, patterns)]


def is_meant(name: str, only: str | Iterable[str] | None) -> bool:
    """Whether ``only`` takes that name in."""
    patterns = [only] if isinstance(only, str) else only
    return patterns is None or any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}.*") for p in patterns)


def _prefixes(names: Iterable[str]) -> set[str]:
    """All names and the modules that they are in."""
    found: set[str] = set()
    for name in names:
        parts = name.split(".")
        found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    return found
