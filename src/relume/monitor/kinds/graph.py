"""The graph of a model: what it computes on an example, module by module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from relume.errors import ConfigurationError
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep


class Graph(Media):
    """What a model computes: a node for each operation, input, parameter and buffer that takes part, with its shape.

    The model is run once on a copy without values, in this call; where that cannot be, on a copy with values, on the model's
    device. Its weights, buffers, modes and all random numbers stay as they are. A model that cannot be run so is shown as
    its modules, without edges, and the content says why (``"problem"``).

    Args:
        model: an ``nn.Module``.
        example: a batch that it takes: a tensor, a tuple or list of arguments, or a mapping of named ones.

    Raises:
        ConfigurationError: the model is no module.

    Example:
        >>> import tempfile, torch
        >>> folder = Path(tempfile.mkdtemp())
        >>> content = Graph(torch.nn.Linear(2, 3), torch.ones(1, 2)).content(folder)
        >>> [(node["name"], node["shape"]) for node in json.loads((folder / content["file"]).read_text())["nodes"]]
        [('input', [1, 2]), ('weight', [3, 2]), ('bias', [3]), ('linear', [1, 3])]
    """

    kind = "graph"

    def __init__(self, model: Any, example: Any) -> None:
        from torch import nn

        from relume.monitor.kinds.tracing import nodes_of

        if not isinstance(model, nn.Module):
            raise ConfigurationError(f"Graph: a {type(model).__name__} is no nn.Module.")
        self._nodes, self._problem = nodes_of(model, example)

    def describe(self, folder: Path) -> Content:
        data = json.dumps({"nodes": self._nodes}, ensure_ascii=False, separators=(",", ":"))
        content = {"file": keep(folder, data.encode("utf-8", "backslashreplace"), "json"), "count": len(self._nodes)}
        return content | ({"problem": self._problem} if self._problem else {})
