"""Trackers by name, and how a tracker gets into another process: its class, and its fields as JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError, RunError, UnknownNameError, closest
from relume.provenance.secrets import process_redactor, without_credentials
from relume.trackers.tracker import KINDS, Tracker

BUILT_IN = {
    "tensorboard": "relume.trackers.tensorboard:TensorBoard",
    "wandb": "relume.trackers.wandb:WandB",
    "mlflow": "relume.trackers.mlflow:MLflow",
}


def trackers_of(wanted: str | Tracker | Iterable[str | Tracker] | None, variable: str | None = None) -> list[Tracker]:
    """The trackers that are asked for by name or as objects, and those that ``RELUME_TRACKERS`` adds.

    Raises:
        UnknownNameError: no tracker has that name.
        ConfigurationError: something else than a tracker, or two of one name.
        MissingPackageError: a tracker's package is not installed.
    """
    listed: Sequence[Any] = [wanted] if isinstance(wanted, (str, Tracker)) else _listed(wanted)
    found = [tracker_of(item) for item in listed]
    for name in filter(None, map(str.strip, (variable or "").split(","))):
        if name not in [tracker.name for tracker in found]:
            found.append(_named_by_variable(name))
    seen: set[str] = set()
    for tracker in found:
        _check(tracker)
        if tracker.name in seen:
            raise ConfigurationError(
                f"trackers: two of them are called {tracker.name!r}. Give one another name: each keeps its place under its own."
            )
        seen.add(tracker.name)
        tracker.check()
    return found


def _listed(wanted: Any) -> Sequence[Any]:
    if wanted is None:
        return []
    if isinstance(wanted, Mapping) or not isinstance(wanted, Iterable):
        raise ConfigurationError(
            f"trackers must be a list of names and relume.Tracker objects, not {type(wanted).__name__}: "
            'trackers=["tensorboard", relume.WandB(project="x")].'
        )
    return list(wanted)


def tracker_of(wanted: str | Tracker) -> Tracker:
    """A tracker by its name, or the object itself.

    Example:
        >>> tracker_of("tensorboard").name
        'tensorboard'
    """
    if isinstance(wanted, Tracker):
        return wanted
    if not isinstance(wanted, str):
        a_class = f", not its class: {wanted.__name__}()" if isinstance(wanted, type) else f", not {wanted!r:.80}"
        raise ConfigurationError(f"trackers: each must be a name or a relume.Tracker object{a_class}.")
    if wanted not in BUILT_IN:
        raise UnknownNameError(f"there is no tracker {wanted!r}: {closest(wanted, BUILT_IN)}")
    made = _class_at(BUILT_IN[wanted])()
    assert isinstance(made, Tracker)
    return made


def _named_by_variable(name: str) -> Tracker:
    try:
        return tracker_of(name)
    except UnknownNameError as error:
        raise UnknownNameError(f"the environment variable RELUME_TRACKERS: {error}") from None


def _check(tracker: Tracker) -> None:
    kind = type(tracker).__name__
    if not isinstance(tracker.name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,49}", tracker.name):
        raise ConfigurationError(
            f"{kind}.name is {tracker.name!r}: a tracker needs a name of letters, digits, - and _, at most 50 of them."
        )
    unknown = set(tracker.kinds) - KINDS
    if unknown:
        raise ConfigurationError(f"{kind}.kinds has {sorted(map(str, unknown))}: {closest(str(min(unknown)), KINDS)}")


def spec_of(tracker: Tracker) -> dict[str, Any] | None:
    """How to build the same tracker in another process; None where its class or its fields are only here."""
    kind = type(tracker)
    if not dataclasses.is_dataclass(tracker) or kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return None
    values = {f.name: getattr(tracker, f.name) for f in dataclasses.fields(tracker) if f.init}
    if set(vars(tracker)) - {f.name for f in dataclasses.fields(tracker)}:
        return None  # it has a state besides its fields
    try:
        if json.loads(json.dumps(values, allow_nan=False)) != values:
            return None
        where = f"{kind.__module__}:{kind.__qualname__}"
        if _class_at(where) is not kind:
            return None
    except (TypeError, ValueError, RecursionError, ImportError, AttributeError):
        return None
    own = kind.__module__.partition(".")[0] == "relume"
    return {"class": where, "fields": values} | ({} if own else {"path": search_path()})


def without_secrets(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec may be written to a run's folder: fields that hold a secret are only named, under ``hidden``.

    An address stays, without its credentials.

    Example:
        >>> spec = {"class": "mine:Mine", "fields": {"url": "https://me:hunter2@example.org", "api_token": "x1y2z3"}}
        >>> without_secrets(spec)["fields"], without_secrets(spec)["hidden"]
        ({'url': 'https://example.org'}, ['api_token'])
    """
    redactor = process_redactor()
    fields: dict[str, Any] = {}
    hidden = set(spec.get("hidden", ()))
    for name, value in spec.get("fields", {}).items():
        kept = without_credentials(value) if isinstance(value, str) else value
        if redactor.config(kept, name) == kept:
            fields[name] = kept
        else:
            hidden.add(name)
    return {**spec, "fields": fields} | ({"hidden": sorted(hidden)} if hidden else {})


def search_path() -> list[str]:
    """Where this process finds modules; the empty entry of an interactive session is its directory."""
    return [place or str(Path.cwd()) for place in sys.path]


def rebuild(spec: Mapping[str, Any]) -> Tracker:
    """The tracker that :func:`spec_of` describes.

    Raises:
        RunError: it cannot be built: its module is gone, or its fields have changed.
    """
    where, added = str(spec.get("class")), [p for p in spec.get("path", ()) if p not in sys.path]
    sys.path += added
    try:
        made = _class_at(where)(**spec.get("fields", {}))
        if not isinstance(made, Tracker):
            raise TypeError(f"{where} is no Tracker")
    except Exception as error:
        raise RunError(
            f"the tracker {where} cannot be built again ({type(error).__name__}: {error!s:.300}). "
            f"Its module must be where it was, with the same fields.{_said_of_hidden(spec)}"
        ) from error
    return made


def _said_of_hidden(spec: Mapping[str, Any]) -> str:
    names = ", ".join(map(str, spec.get("hidden", ())))
    return (
        f" Not kept, because they look like secrets: {names}; let it read them from the environment." if names else ""
    )


def _class_at(where: str) -> Any:
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
