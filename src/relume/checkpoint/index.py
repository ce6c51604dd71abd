"""What a store holds: every pack's header, and which of them can be built on."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

from relume.checkpoint.pack import Pack, list_packs, read_pack
from relume.errors import PackError


class Index:
    """The headers of the packs of one store, read once each.

    Attributes:
        unreadable: packs whose header cannot be used, and why.
        trusted: pieces (pack id, hash) whose bytes this process has written or verified.
    """

    def __init__(self, packs: Path) -> None:
        self.folder = packs
        self.unreadable: dict[str, PackError] = {}
        self.trusted: set[tuple[str, str]] = set()
        self._mutex = threading.RLock()  # a background save and a load of the same process meet here
        self._packs: dict[str, Pack] = {}
        self._holders: dict[str, set[str]] = defaultdict(set)

    def refresh(self) -> None:
        """Notice the packs that came and went."""
        with self._mutex:
            present = set(list_packs(self.folder))
            for pack_id in self._packs.keys() - present:
                self._drop(pack_id)
            self.unreadable = {}
            for pack_id in sorted(present - self._packs.keys()):
                try:
                    self.add(read_pack(self.folder, pack_id))
                except PackError as error:
                    self.unreadable[pack_id] = error

    def add(self, pack: Pack, *, trusted: bool = False) -> None:
        """Take up one pack."""
        with self._mutex:
            self._packs[pack.id] = pack
            for name in pack.spans:
                self._holders[name].add(pack.id)
                if trusted:
                    self.trusted.add((pack.id, name))

    def packs(self) -> list[Pack]:
        """All readable packs, in the order of their ids."""
        with self._mutex:
            return [self._packs[pack_id] for pack_id in sorted(self._packs)]

    def holders(self, name: str, first: str = "") -> list[Pack]:
        """The packs that hold the piece of that hash, ``first`` before the others."""
        with self._mutex:
            ids = sorted(self._holders.get(name, ()), key=lambda pack_id: (pack_id != first, pack_id))
            return [self._packs[pack_id] for pack_id in ids]

    def _drop(self, pack_id: str) -> None:
        for name in self._packs.pop(pack_id).spans:
            self._holders[name].discard(pack_id)
            self.trusted.discard((pack_id, name))
