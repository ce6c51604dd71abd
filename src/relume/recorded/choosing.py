"""Which runs, in which order: conditions and orders over the facts of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from relume.errors import ConfigurationError, UnknownNameError, closest
from relume.recorded.expression import parse
from relume.recorded.facts import Facts, flat

_OWN = (
    *("name", "id", "status", "reason", "created", "seconds", "epoch", "step", "folder", "seed", "tags", "notes"),
    "archived",
)
_PARTS = ("best", "last", "min", "max", "count")


def value_of(facts: Facts, name: str) -> Any:
    """What a name means for a run: None where the run has none.

    In this order: a fact (name, id, status, reason, created, seconds, epoch, step, folder, seed, tags, notes, archived), a
    setting of the config (``optimizer.lr``, also with slashes; ``lr`` alone where no other ends so), and the best value of a
    metric.
    ``last:val/loss``, ``min:``, ``max:``, ``best:`` and ``count:`` name a value of a metric, ``config:`` a setting.
    ``created`` is a date, comparable with ``"2026-11-21"``.

    Example:
        >>> value_of({"config": {"lr": 0.1}, "metrics": {"loss": {"best": 1.0, "last": 2.0}}}, "last:loss")
        2.0
    """
    prefix, colon, rest = name.partition(":")
    metrics = facts.get("metrics", {})
    if colon and prefix in _PARTS:
        return metrics.get(rest, {}).get(prefix)
    if colon and prefix == "config":
        return _setting(facts, rest)
    if name == "created" and "created" in facts:
        try:
            return datetime.fromtimestamp(facts["created"], UTC).astimezone()
        except (ValueError, OverflowError, OSError):  # no date that a calendar has
            return None
    if name in _OWN:
        return facts.get(name)
    found = _setting(facts, name)
    return metrics.get(name, {}).get("best") if found is None else found


def known_names(runs: Iterable[Facts]) -> dict[str, None]:
    """All that can be asked of these runs, without prefixes."""
    names = dict.fromkeys(_OWN)
    for facts in runs:
        names.update(dict.fromkeys([*flat(facts.get("config", {})), *facts.get("metrics", {})]))
    return names


def choose(
    runs: Sequence[Facts], where: str | None = None, sort: str | None = None, *, descending: bool = False
) -> list[Facts]:
    """The runs for which a condition holds, in an order.

    Args:
        where: see `relume.recorded.expression`.
        sort: a name, see `value_of`; runs that do not have it, or NaN, come last. The order of equals stays.

    Raises:
        ExpressionError: the condition cannot be read.
        UnknownNameError: no run has such a name; lists the closest.

    Example:
        >>> runs = [{"name": "a", "config": {"lr": 0.1}}, {"name": "b", "config": {"lr": 0.01}}]
        >>> [run["name"] for run in choose(runs, "lr <= 0.1", "lr")]
        ['b', 'a']
    """
    found = list(runs)
    if where is not None:
        condition = parse(where)
        check_names(condition.names, runs)
        found = [facts for facts in found if condition.holds(partial(value_of, facts))]
    if sort is not None:
        check_names([sort], runs)
        keyed = [(_order(value_of(facts, sort)), facts) for facts in found]
        there = [(key, facts) for key, facts in keyed if key is not None]
        there.sort(key=lambda pair: pair[0], reverse=descending)
        found = [facts for _, facts in there] + [facts for key, facts in keyed if key is None]
    return found


def check_names(names: Iterable[str], runs: Sequence[Facts]) -> None:
    """Whether each name means something for one of the runs at least.

    Raises:
        UnknownNameError: it does not; lists the closest names.
        ConfigurationError: its prefix is unknown.
    """
    known = known_names(runs)
    for name in names:
        prefix, colon, rest = name.partition(":")
        if name in known or not runs or any(_setting(facts, name) is not None for facts in runs):
            continue
        if colon and prefix not in (*_PARTS, "config"):
            raise ConfigurationError(
                f"{name!r}: the prefix {prefix!r} is unknown. There are {', '.join(f'{p}:' for p in (*_PARTS, 'config'))}; "
                "a name with a colon in it stands between backquotes."
            )
        is_setting = prefix == "config" and any(_setting(facts, rest) is not None for facts in runs)
        if not colon or (rest not in known and not is_setting):
            raise UnknownNameError(f"no run has {rest or name!r}: {closest(rest or name, known)}")


def _setting(facts: Facts, name: str) -> Any:
    settings: Any = facts.get("config", {})
    if name in settings:
        return settings[name]
    settings, dotted = flat(settings), name.replace("/", ".")
    ending = [key for key in settings if key.endswith(f".{dotted}")]
    key = name if name in settings else dotted if dotted in settings else ending[0] if len(ending) == 1 else None
    return None if key is None else settings[key]


def _order(value: Any) -> tuple[int, Any] | None:
    """Numbers before texts before all else; None for what comes last."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, datetime):
        return (0, value.timestamp())
    if isinstance(value, (bool, int, float)):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, str(value))
