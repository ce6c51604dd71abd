"""What a person has said of a run since: notes, tags, and whether it is put away.

It stands in a small file of its own, ``edits.json``: a training that goes on in the same folder writes ``run.json`` and never
this, so neither can lose what the other has written.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from relume.errors import ConfigurationError, RunError

FILE = "edits.json"
_NOTES_LIMIT, _TAGS_LIMIT, _TAG_LIMIT = 20_000, 50, 100
_writing = threading.Lock()


class Edits(BaseModel):
    """None says that nothing was changed: what ``run.json`` says holds."""

    model_config = ConfigDict(extra="forbid", strict=True)

    notes: Annotated[str, StringConstraints(max_length=_NOTES_LIMIT)] | None = None
    tags: Annotated[list[str], Field(max_length=_TAGS_LIMIT)] | None = None
    archived: bool | None = None

    @field_validator("notes", "tags", mode="before")
    @classmethod
    def _as_utf8_can_say(cls, value: Any) -> Any:
        """Half of a surrogate pair comes out of JSON and goes into no file."""
        if isinstance(value, list):
            return [cls._as_utf8_can_say(item) for item in value]
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    @field_validator("tags")
    @classmethod
    def _each_once(cls, tags: list[str] | None) -> list[str] | None:
        if tags is None:
            return None
        stripped = [tag for tag in dict.fromkeys(tag.strip() for tag in tags) if tag]
        if any(len(tag) > _TAG_LIMIT for tag in stripped):
            raise ValueError(f"a tag has at most {_TAG_LIMIT} characters")
        return stripped

    def said(self) -> dict[str, Any]:
        """What was changed."""
        return self.model_dump(exclude_none=True)


def edits_of(folder: Path) -> Edits:
    """What was changed of a run; nothing where the file is damaged."""
    if not (folder / FILE).is_file():  # or a pipe, which would be waited for
        return Edits()
    try:
        text = (folder / FILE).read_text("utf-8")
        known = {name: value for name, value in json.loads(text).items() if name in Edits.model_fields}
        return Edits.model_validate(known)
    except (OSError, ValueError, AttributeError, RecursionError):  # garbage must not hide the run
        return Edits()


def edit(folder: Path, /, **changes: Any) -> Edits:
    """Change the notes, the tags or the archived mark of a run, also while it goes on.

    Args:
        changes: ``notes``, at most 20,000 characters; ``tags``, at most 50 of 100 characters each, each kept once and without
            blanks around it; ``archived``, which takes the run out of lists. What is not given stays.

    Raises:
        ConfigurationError: a value is none of these.
        RunError: the file cannot be written.
    """
    from relume.monitor.record import write_whole  # it reads what is written here

    new = _checked(changes)
    try:
        with _writing:
            found = edits_of(folder).model_copy(update=new.said())
            write_whole(folder / FILE, json.dumps(found.said(), ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{folder / FILE} cannot be written: {error.strerror}.") from error
    return found


def _checked(changes: dict[str, Any]) -> Edits:
    try:
        return Edits.model_validate(changes)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"{place}: {first['msg']}. There are notes (at most {_NOTES_LIMIT:,} characters), tags (a list of at most "
            f"{_TAGS_LIMIT} texts) and archived (true or false)."
        ) from None
