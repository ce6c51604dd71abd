"""What a manifest says of its checkpoint, read without torch."""

from __future__ import annotations

import struct
from typing import Any


def plain(node: Any) -> Any:
    """A description as `codec` wrote it, as plain values: numbers, texts, lists and mappings; None for all else.

    Example:
        >>> plain({"loss": {"$": "float", "hex": "7ff0000000000000"}, "shape": {"$": "tuple", "items": [1, 2]}})
        {'loss': inf, 'shape': [1, 2]}
    """
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$" not in node:
        return {key: plain(item) for key, item in node.items()}
    try:
        return _special(node)
    except (KeyError, TypeError, ValueError, struct.error):
        return None


def _special(node: dict[str, Any]) -> Any:
    match node["$"]:
        case "int":
            return int(node["hex"], 16)
        case "float":
            return struct.unpack(">d", bytes.fromhex(node["hex"]))[0]
        case "dict":
            return {str(plain(key)): plain(item) for key, item in node["items"]}
        case "OrderedDict" | "defaultdict" | "Counter" | "tuple" | "set" | "frozenset" | "deque" | "Size":
            return plain(node["items"])
        case "dtype" | "device":
            return str(node["name"])
        case _:
            return None
