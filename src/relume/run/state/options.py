"""Options of optimizers that were changed in the script since the checkpoint was written: which value holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relume.run.state.values import equal, shown

_HOW = ("foreach", "fused", "capturable", "differentiable")
"""Options that say how the step is computed, on which device, and not what: the script's hold."""
_OF_LR = ("initial_lr", "max_lr", "min_lr")
"""Options that a scheduler derives from the learning rate: they go with it."""


@dataclass
class Choice:
    """The options of one group: the checkpoint's, the script's, and what the script said when the checkpoint was written."""

    saved: dict[str, Any]
    script: dict[str, Any]
    written: Mapping[str, Any] | None
    override: frozenset[str]
    changes: list[str] = field(default_factory=list)

    def options(self) -> dict[str, Any]:
        chosen = dict(self.saved)
        for name, value in self.script.items():
            if name not in self.saved:
                continue
            if name in _HOW:
                if not equal(self.saved[name], value):
                    chosen[name] = value
                    self.changes.append(
                        f"{name} was {shown(self.saved[name])} and is {shown(value)} in the script: the script's is used, "
                        "and the last bits may differ"
                    )
            elif self._is_changed(name):
                self._choose(name, chosen)
        return chosen

    def _is_changed(self, name: str) -> bool:
        if name == "initial_lr":
            return False  # it goes with lr
        key = self._key(name)
        return self.written is None or (key in self.written and not equal(self.written[key], self.script[key]))

    def _key(self, name: str) -> str:
        """Under a scheduler the learning rate that the script gave is kept as ``initial_lr``."""
        is_scheduled = name == "lr" and all("initial_lr" in o for o in (self.saved, self.script, self.written or {}))
        return "initial_lr" if is_scheduled else name

    def _choose(self, name: str, chosen: dict[str, Any]) -> None:
        key, is_over = self._key(name), name in self.override or (name in _OF_LR and "lr" in self.override)
        if is_over:
            chosen[key] = self.script[key]
            chosen[name] = self._scaled() if key != name else self.script[name]
        if self.written is None or (equal(chosen[name], self.script[name]) and not is_over):
            return
        scaled = f", on the schedule {shown(chosen[name])}" if is_over and key != name else ""
        use = f"the script's is used{scaled}" if is_over else (
            f"the checkpoint's {shown(chosen[name])} is used (override={{{name!r}}} uses the script's)"
        )  # fmt: skip
        self.changes.append(
            f"{name} was {shown(self.written[key])} and is {shown(self.script[key])} in the script: {use}"
        )

    def _scaled(self) -> Any:
        """The learning rate that the schedule has reached, with the script's new base."""
        lr, before, now = self.saved["lr"], self.saved["initial_lr"], self.script["initial_lr"]
        if equal(lr, before):
            return now
        return lr * (now / before) if before else self.script["lr"]
