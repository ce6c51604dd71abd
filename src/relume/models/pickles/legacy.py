"""Files that ``torch.save`` wrote before 1.6: five pickles one after the other, then the bytes of all storages."""

from __future__ import annotations

import mmap
import re
import struct
from typing import Any

from relume.models.pickles.context import Context
from relume.models.pickles.inert import describe
from relume.models.pickles.machine import Machine
from relume.models.pickles.storages import StreamStorages

_MAGIC = 0x1950A86A20F9469CFC6C
_FORMAT = 1001
_START = re.compile(
    rb"(\x80[\x02-\x05](\x95.{8})?\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19\.|L119547037146038801333356L\n\.)", re.DOTALL
)
_COUNT = struct.Struct("<q")


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins so is of the older format."""
    return _START.match(start) is not None


def read_stream(context: Context, memory: mmap.mmap | bytes) -> Any:
    """What such a file holds.

    The sizes of storages stand in the pickle of the content, and their places can be told only from what follows it. So
    the pickle is gone through twice: first for the sizes, then to build the tensors where they are.
    """
    position, is_little = _preamble(context, memory)
    dry = context if context.is_dry else context.dry()
    if not context.nested:
        context.allow(len(memory))
        dry.allow(len(memory))
    storages = StreamStorages(dry, memory, is_little=is_little)
    first = Machine(memory, dry, storages, position)
    first.load()
    places = _places(context, memory, first.position, storages.sizes)
    if context.is_dry:
        return None
    found = StreamStorages(context, memory, is_little=is_little)
    found.places = places
    return Machine(memory, context, found, position).load()


def _preamble(context: Context, memory: mmap.mmap | bytes) -> tuple[int, bool]:
    """Where the content begins, and whether the bytes of numbers have the usual order."""
    values, position = [], 0
    for _ in range(3):
        machine = Machine(memory, context, None, position)
        values.append(machine.load())
        position = machine.position
    magic, version, system = values
    if magic != _MAGIC:
        raise context.damaged("it does not begin as a file of torch.save does")
    if version != _FORMAT:
        raise context.damaged(f"its format is {describe(version)}, and the only one there was is {_FORMAT}")
    return position, not (isinstance(system, dict) and system.get("little_endian") is False)


def _places(
    context: Context, memory: mmap.mmap | bytes, position: int, sizes: dict[str, tuple[int, int]]
) -> dict[str, int]:
    """Where the bytes of each storage begin; their counts must be those that the pickle claims."""
    machine = Machine(memory, context, None, position)
    keys = machine.load()
    position = machine.position
    if not isinstance(keys, list):
        raise context.damaged(f"where the storages should be listed is {describe(keys)}")
    places: dict[str, int] = {}
    for key in keys:
        key = key.decode() if isinstance(key, bytes) else key
        if not isinstance(key, str) or key not in sizes or key in places:
            raise context.unsafe(f"it lists the storage {describe(key)} twice, or no tensor is in it")
        size_bytes, itemsize = sizes[key]
        if position + _COUNT.size + size_bytes > len(memory):
            raise context.damaged(
                f"the storage {key!r:.80} claims {size_bytes:,} bytes, where {max(len(memory) - position - 8, 0):,} are left"
            )
        (count,) = _COUNT.unpack_from(memory, position)
        if not 0 <= count * itemsize - size_bytes + itemsize - 1 < 2 * itemsize - 1:
            raise context.unsafe(
                f"the storage {key!r:.80} has two sizes: {size_bytes:,} and {count * itemsize:,} bytes"
            )
        position += _COUNT.size
        places[key] = position
        position += size_bytes
    missing = sizes.keys() - places.keys()
    if missing:
        raise context.damaged(f"{len(missing)} of its storages are missing")
    return places
