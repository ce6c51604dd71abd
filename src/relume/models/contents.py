"""What a file of weights, of a model or of a training holds, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from relume.errors import ClassicFileError

Format = Literal[
    "safetensors", "sharded safetensors", "torch", "torch legacy", "torchscript", "pt2", "checkpoint", "bundle"
]  # fmt: skip
"""``torch`` is the zip archive that ``torch.save`` writes, ``torch legacy`` what it wrote before 1.6."""

RECIPE = "relume.model"
"""Under which name ``metadata`` say how the model is built, see `relume.models.whole.model_document`."""

CLASSES, INPUT = "relume.classes", "relume.input"
"""Under which names ``metadata`` hold the names of a classifier's classes, and how an image becomes its input, as JSON."""


@dataclass(frozen=True)
class ModelFile:
    """A file, opened without running anything that is in it.

    Attributes:
        path: the file, the index of a sharded one, or a checkpoint's manifest.
        format: how it is written.
        state: the weights, by name, in the file's order. Where the format allows it they are mapped from the file, each
            read when it is used; memory that is written to is a copy. Tied tensors share memory. What modules gave as their
            extra state (``_extra_state``) is in it too, in files that hold such: tensors or plain Python.
        metadata: what a safetensors file says of itself besides tensors, a checkpoint of its run.
        content: all that a file of ``torch.save`` or ``torch.jit.save`` holds, with an `Inert` for each object that is
            neither tensor nor plain Python. None for other formats.
        callables: what a pickle names to be looked up and called, other than what stands for tensors and plain Python,
            with how often; the files of code in a TorchScript archive, as ``TorchScript code/...``. None of it was.
        suspicious: of these, and of everything else that was found, what no weights need, in words.
        size_bytes: of the file, or of all files.
        beside: what a checkpoint holds beside the weights of this model: other models, optimizers, ...
        problem: why ``state`` is empty, or not all of the weights, in a file that holds something; empty where it is all.
            Whoever takes weights calls `checked_state`, which raises that.
        bundle: the `relume.share.bundle.Bundle` that holds it, where ``format`` is ``bundle``.
    """

    path: Path
    format: Format
    state: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    content: Any = None
    callables: Mapping[str, int] = field(default_factory=dict)
    suspicious: tuple[str, ...] = ()
    size_bytes: int = 0
    beside: tuple[str, ...] = ()
    problem: str = ""
    bundle: Any = None

    def __repr__(self) -> str:
        what = "; ".join(
            filter(None, (f"{len(self.state)} in its state", f"{self.size_bytes:,} bytes", self.problem[:200]))
        )
        return f"<ModelFile {str(self.path)!r}: {self.format}, {what}>"


def checked_state(file: ModelFile) -> Mapping[str, Any]:
    """The weights of a file; raises ClassicFileError where it holds others than those."""
    if file.problem:
        raise ClassicFileError(file.problem)
    return file.state
