"""Text."""

from __future__ import annotations

from pathlib import Path

from relume.errors import ConfigurationError
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep

_LONGEST_IN_LINE = 4096


class Text(Media):
    r"""A text, as it is: a generated sentence, a note, a table in markdown.

    Args:
        text: of any length and with any letters; half of a surrogate pair is written as Python does it (``\ud800``).

    Raises:
        ConfigurationError: it is no text.

    Example:
        >>> Text("three cats on a mat").content(Path())
        {'kind': 'text', 'text': 'three cats on a mat'}
    """

    kind = "text"

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigurationError(f"Text: a {type(text).__name__} is no text ({text!r:.80}). Give str(...) of it.")
        self._text = text

    def describe(self, folder: Path) -> Content:
        data = self._text.encode("utf-8", "backslashreplace")
        if len(data) <= _LONGEST_IN_LINE:
            return {"text": data.decode()}
        return {"file": keep(folder, data, "txt")}
