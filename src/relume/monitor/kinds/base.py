"""What all kinds have in common: an object that holds a copy of what was logged, and can say it for the journal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

Content = dict[str, Any]
"""What stands in the journal of one logged thing: ``{"kind": ..., ...}``, with ``"file"`` where it is large."""


class Media(ABC):
    """Something that is logged and is no number: an image, a histogram, a text, ...

    It holds a copy of what it was made from: what is changed afterwards does not change it. A tensor on a device is copied
    without waiting for it.

    Attributes:
        kind: its name in the journal, such as ``"image"``.
    """

    kind: ClassVar[str]

    @abstractmethod
    def describe(self, folder: Path) -> Content:
        """All of the content but its kind; called once, behind the training's back. Large parts become files."""

    def content(self, folder: Path) -> Content:
        """What the journal holds of it. Writes its files below ``folder``, the run's."""
        return {"kind": self.kind, **self.describe(folder)}

    def parts(self, folder: Path) -> dict[str, Content]:
        """Contents by what is added to the name under which this is logged; most kinds are one thing, of that name."""
        return {"": self.content(folder)}
