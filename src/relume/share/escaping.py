"""Other people's text in Markdown, YAML and BibTeX, such that it means nothing but itself.

Names, notes and settings of a run are anybody's. Nothing of them becomes markup, a link, HTML or a direction of writing.
Formats: GitHub Flavored Markdown 0.29, YAML 1.2 (with YAML 1.1's readers in mind, such as PyYAML).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from relume.text import printable

_MARKUP = re.compile(r"[\\`*_\[\]<>~$|&{}]")
_AT_THE_BEGIN = re.compile(r"^(?:[#+=:>-]|\d+(?=[.)](?:\s|$)))")
_LINKED = re.compile(r"://|www\.|@|(?:mailto|xmpp|javascript|data):", re.IGNORECASE)
_ADDRESS = re.compile(r"https://[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?(?:/[A-Za-z0-9./_~%?=#+-]*)?")
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ENTITIES = {"\\": "&#92;", "&": "&amp;"}
_BIBTEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def prose(text: object, limit: int = 200) -> str:
    r"""Any text as plain words of a Markdown paragraph or table.

    What a renderer might take for an address becomes code, in which nothing is linked.

    Example:
        >>> prose("a *b* | <script>"), prose("1. no list")
        ('a \\*b\\* \\| \\<script\\>', '1\\. no list')
        >>> prose("see www.example.org")
        '`see www.example.org`'
    """
    line = printable(text, limit).strip()
    if _LINKED.search(line):
        return code(line, limit)
    return _marked(line)


def words(text: object, limit: int = 200) -> str:
    r"""Any text as plain words where code cannot stand, such as in the text of a picture.

    Example:
        >>> words("a](b) <i>")
        'a\\](b) \\<i\\>'
    """
    return _marked(_unlinked(printable(text, limit).strip()))


def code(text: object, limit: int = 200) -> str:
    r"""Any text as code within a line, also in a table.

    Example:
        >>> code("val/loss"), code("a`b"), code("a|b")
        ('`val/loss`', '``a`b``', 'a\\|b')
    """
    line = printable(text, limit).strip()
    if not line:
        return ""
    if "|" in line:  # in code, a table needs a mark before it that would show everywhere else
        return _marked(_unlinked(line))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str, language: str = "", limit: int = 4000) -> str:
    """Any text as a block of code; ``language`` is ours."""
    lines = text[: 2 * limit].split("\n")
    body = printable_lines(lines)[:limit]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", body)), default=0))
    return f"{fence}{language}\n{body}\n{fence}"


def printable_lines(lines: Sequence[str], limit: int = 400) -> str:
    """Lines with nothing in them but what shows."""
    return "\n".join(printable(line.expandtabs(4), limit).rstrip() for line in lines)


def address(url: str) -> str:
    """A link that shows where it leads, if it is a plain https address; else code.

    Example:
        >>> address("https://example.org/a"), address("javascript:alert(1)")
        ('<https://example.org/a>', '`javascript:alert(1)`')
    """
    return f"<{url}>" if is_address(url) else code(url)


def is_address(url: str) -> bool:
    """Whether it is a plain https address."""
    return len(url) <= 300 and _ADDRESS.fullmatch(url) is not None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of Markdown; cells are escaped already. ``numbers``: the columns that stand on the right."""
    rule = ("---:" if place in numbers else "---" for place in range(len(columns)))
    lines = [" | ".join(columns), " | ".join(rule), *(" | ".join(cell or " " for cell in row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def yaml(value: Mapping[str, Any], limit: int = 400) -> str:
    """Nested mappings, lists, text, numbers and truth values as YAML, in their order; text is always quoted.

    Example:
        >>> print(yaml({"tags": ["a: b", "no"], "value": 1e-05}), end="")
        tags:
        - "a: b"
        - "no"
        value: 1.0e-05
    """
    return "".join(f"{line}\n" for line in _yaml_lines(value, limit))


def bibtex(text: object, limit: int = 300) -> str:
    r"""Any text as a value of BibTeX.

    Example:
        >>> bibtex("50% {of} A_b")
        '50\\% \\{of\\} A\\_b'
    """
    line = printable(text, limit).strip()
    return "".join(_BIBTEX.get(letter) or (f"\\{letter}" if letter in "#$%&_{}" else letter) for letter in line)


def _marked(line: str) -> str:
    """Everything that could be markup with a mark before it."""
    line = _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line)
    return _AT_THE_BEGIN.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", line)


def _unlinked(line: str) -> str:
    """A word joiner keeps renderers from seeing an address."""
    return _LINKED.sub(lambda found: f"{found[0][0]}\u2060{found[0][1:]}", line)


def _yaml_lines(value: Any, limit: int) -> list[str]:
    if isinstance(value, Mapping):
        lines = []
        for key, inner in value.items():
            name = key if _PLAIN_KEY.fullmatch(key) else _yaml_text(key, limit)
            nested = isinstance(inner, (Mapping, list, tuple)) and inner
            if nested and isinstance(inner, Mapping):
                lines += [f"{name}:", *(f"  {line}" for line in _yaml_lines(inner, limit))]
            elif nested:
                lines += [f"{name}:", *_yaml_lines(inner, limit)]
            else:
                lines.append(f"{name}: {_yaml_scalar(inner, limit)}")
        return lines
    lines = []
    for inner in value:
        below = _yaml_lines(inner, limit) if isinstance(inner, (Mapping, list, tuple)) and inner else []
        below = below or [_yaml_scalar(inner, limit)]
        lines += [f"- {below[0]}", *(f"  {line}" for line in below[1:])]
    return lines


def _yaml_scalar(value: Any, limit: int) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")  # without a point YAML 1.1 reads text
    if isinstance(value, (Mapping, list, tuple)):
        return "{}" if isinstance(value, Mapping) else "[]"
    return _yaml_text(value, limit)


def _yaml_text(value: object, limit: int) -> str:
    return json.dumps(printable(value, limit), ensure_ascii=False)
