"""What all pickles of one file share: its name for messages, what was found in it, and how much it may take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.pickles.inert import Inert, describe

_BASE_BYTES = 64 << 20
_BYTES_PER_BYTE = 32  # what honest pickles take in memory, a large vocabulary most: 30 bytes for each of their own
_CLAIM_SLACK_BYTES = 16 << 20
_MAX_SUSPICIOUS = 100
_MAX_NESTED = 4


@dataclass
class Context:
    """One file that is being read.

    Attributes:
        path, size_bytes: the file.
        source: which part of it is being read, for messages.
        is_dry: only sizes and positions are wanted: tensors are not built.
        nested: how many pickles the present one stands in.
        callables: classes and functions that are not built, with how often they would be called.
        suspicious: what no weights need, in words.
    """

    path: Path
    size_bytes: int
    source: str = "the pickle"
    is_dry: bool = False
    nested: int = 0
    callables: Counter[str] = field(default_factory=Counter)
    suspicious: list[str] = field(default_factory=list)
    _allowed_bytes: int = _BASE_BYTES
    _claimed_bytes: int = 0
    _claims: set[Any] = field(default_factory=set)
    _noted: dict[int, tuple[int, Inert]] = field(default_factory=dict)

    def damaged(self, problem: str) -> ModelFileError:
        """The error for a file whose bytes make no sense."""
        return ModelFileError(f"{self.path} is damaged: {self.source}: {problem}. Get the file again, or save it anew.")

    def unsafe(self, problem: str) -> UnsafeFileError:
        """The error for a file that no ``torch.save`` writes."""
        return UnsafeFileError(
            f"{self.path} is refused: {self.source}: {problem}. torch writes no such file; nothing of it was run."
        )

    def dry(self) -> Context:
        """A context for a first look at the same part of the file, which builds nothing and records nothing."""
        first = Context(self.path, self.size_bytes, self.source, is_dry=True, nested=self.nested)
        first._allowed_bytes = max(self._allowed_bytes, _BASE_BYTES)
        return first

    def allow(self, pickle_bytes: int) -> None:
        """Let objects of a pickle of that length take memory."""
        self._allowed_bytes += _BYTES_PER_BYTE * pickle_bytes

    def spend(self, size_bytes: int) -> None:
        """Count memory that objects take; raises UnsafeFileError when it is out of proportion to the pickle."""
        self._allowed_bytes -= size_bytes
        if self._allowed_bytes < 0:
            raise self.unsafe("its objects would take far more memory than the file has bytes")

    def enter(self) -> None:
        """Begin a pickle within a pickle."""
        self.nested += 1
        if self.nested > _MAX_NESTED:
            raise self.unsafe(f"it holds pickles within pickles, more than {_MAX_NESTED} deep")

    def leave(self) -> None:
        """End it."""
        self.nested -= 1

    def claim(self, identity: Any, size_bytes: int) -> None:
        """Count what a tensor would take if it were written out, each view of the same memory once.

        Tensors that repeat their elements (strides of 0, overlapping views) can claim anything.
        """
        if identity in self._claims:
            return
        self._claims.add(identity)
        self._claimed_bytes += size_bytes
        if self._claimed_bytes > 2 * self.size_bytes + _CLAIM_SLACK_BYTES:
            raise self.unsafe(
                f"its tensors claim {self._claimed_bytes:,} bytes and more, and the whole file has {self.size_bytes:,}"
            )

    def note(self, problem: str, where: int, callee: Inert | None = None) -> None:
        """Record something suspicious; a later note of the same ``callee`` replaces the first."""
        text = f"{problem} (byte {where:,} of {self.source})"
        if callee is not None and id(callee) in self._noted:
            self.suspicious[self._noted.pop(id(callee))[0]] = text
        elif len(self.suspicious) < _MAX_SUSPICIOUS and text not in self.suspicious:
            if callee is not None:
                self._noted[id(callee)] = len(self.suspicious), callee
            self.suspicious.append(text)

    def note_call(self, callee: Inert, arguments: Any, where: int) -> None:
        """Record a suspicious call with what it would have got."""
        called_with = describe(arguments) if isinstance(arguments, tuple) else f"({describe(arguments)})"
        self.note(f"{callee.class_name[:200]}{called_with}", where, callee)
