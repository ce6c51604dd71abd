"""The memory of tensors: where in a file it lies, and the tensors that are views of it, their bounds checked."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from typing import Any

import torch

from relume.models.archive import Archive
from relume.models.pickles.context import Context
from relume.models.pickles.inert import Inert, describe

_TYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8,
    "Bool": torch.bool, "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
    "QInt8": torch.qint8, "QUInt8": torch.quint8, "QInt32": torch.qint32,
    "QUInt4x2": torch.quint4x2, "QUInt2x4": torch.quint2x4,
}  # fmt: skip
_ALIGNMENT = 16  # of the widest element, complex128
_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**63 - 1
TENSOR_BYTES = 700  # what a tensor takes besides its data


class StorageType(Inert):
    """A class of torch's storages; ``dtype`` is None for those of bytes."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, dtype: torch.dtype | None) -> None:
        super().__init__(name, is_reference=True)
        self.dtype = dtype


class Storage(Inert):
    """Memory of a file, seen as elements of one dtype. ``flat`` gives it as bytes, each time the same tensor."""

    __slots__ = ("dtype", "flat", "key", "size_bytes")

    def __init__(
        self, kind: StorageType, key: Any, size_bytes: int, flat: Callable[[torch.dtype | None], torch.Tensor]
    ) -> None:
        super().__init__(kind.class_name)
        self.dtype = kind.dtype
        self.key = key
        self.size_bytes = size_bytes
        self.flat = flat


def storage_type(module: str, name: str) -> StorageType | None:
    """The class of storages with that name; None where it is no such class."""
    kind = name.removesuffix("Storage")
    if kind == name or module.partition(".")[0] not in ("torch", "torch_npu", "torch_xla"):
        return None
    if kind in ("Untyped", "_Untyped"):
        return StorageType("torch.UntypedStorage", None)
    return StorageType(f"torch.{name}", _TYPES[kind]) if kind in _TYPES else None


def storage_fields(context: Context, saved_id: Any, count: int) -> tuple[StorageType, str, int, Any]:
    """What a persistent id of a storage says: its class, its key, its size in bytes, and what follows.

    Args:
        count: how many fields such an id has in this format.
    """
    if not isinstance(saved_id, tuple) or len(saved_id) != count or saved_id[0] not in ("storage", b"storage"):
        raise context.unsafe(f"it refers to {describe(saved_id)}, and not to a storage of tensors")
    _, kind, key, _, numel, *rest = saved_id
    if isinstance(key, bytes):
        key = key.decode()
    if not isinstance(kind, StorageType) or not isinstance(key, str) or not _is_size(numel):
        raise context.unsafe(f"it refers to {describe(saved_id)}, and not to a storage of tensors")
    itemsize = kind.dtype.itemsize if kind.dtype else 1
    return kind, key, numel * itemsize, rest[0] if rest else None


class ZipStorages:
    """The storages of one folder of an archive."""

    def __init__(self, context: Context, archive: Archive, folder: str, *, is_little: bool) -> None:
        self._context = context
        self._archive = archive
        self._folder = folder
        self._is_little = is_little
        self._flat: dict[str, torch.Tensor] = {}

    def __call__(self, saved_id: Any) -> Storage:
        """The storage that a persistent id names."""
        kind, key, size_bytes, _ = storage_fields(self._context, saved_id, 5)
        name = f"{self._folder}/{key}"
        entry = self._archive.entries.get(name)
        if entry is None:
            raise self._context.damaged(f"it refers to the tensor data {name!r:.200}, which is not in the archive")
        slack = (kind.dtype.itemsize if kind.dtype else 1) - 1
        if not 0 <= entry.size_bytes - size_bytes <= slack:
            raise self._context.unsafe(
                f"it claims that {name!r} has {size_bytes:,} bytes, where the archive has {entry.size_bytes:,}"
            )
        return Storage(kind, name, size_bytes, lambda dtype: self._of(name, dtype))

    def _of(self, name: str, dtype: torch.dtype | None) -> torch.Tensor:
        flat = self._flat.get(name)
        if flat is None:
            flat = aligned(self._archive.mapped(name))
            self._flat[name] = flat = in_our_order(flat, dtype, self._context, is_little=self._is_little)
        return flat


class StreamStorages:
    """The storages that follow the pickle in a file of the older format."""

    def __init__(self, context: Context, memory: mmap.mmap | bytes, *, is_little: bool) -> None:
        self._context = context
        self._memory = memory
        self._is_little = is_little
        self._flat: dict[str, torch.Tensor] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.places: dict[str, int] | None = None

    def __call__(self, saved_id: Any) -> Any:
        """The storage that a persistent id names, or the class of a module that comes with its source."""
        if isinstance(saved_id, tuple) and len(saved_id) == 4 and saved_id[0] in ("module", b"module"):
            return saved_id[1]
        kind, key, root_bytes, view = storage_fields(self._context, saved_id, 6)
        itemsize = kind.dtype.itemsize if kind.dtype else 1
        if self.sizes.setdefault(key, (root_bytes, itemsize))[0] != root_bytes:
            raise self._context.unsafe(f"it claims two sizes for the storage {key!r:.80}")
        if self.places is not None and key not in self.places:
            raise self._context.damaged(f"the storage {key!r:.80} is not in the file")
        start, size_bytes = 0, root_bytes
        if view is not None:
            if not isinstance(view, tuple) or len(view) != 3 or not all(_is_size(number) for number in view[1:]):
                raise self._context.unsafe(f"a storage is {describe(view)} of another")
            start, size_bytes = view[1] * itemsize, view[2] * itemsize
            if start + size_bytes > root_bytes:
                raise self._context.unsafe(f"a storage claims bytes beyond the end of another, {key!r:.80}")
        return Storage(kind, (key, start), size_bytes, lambda dtype: self._of(key, dtype)[start : start + size_bytes])

    def _of(self, key: str, dtype: torch.dtype | None) -> torch.Tensor:
        flat = self._flat.get(key)
        if flat is None and self.places is not None:
            if isinstance(self._memory, bytes):
                self._context.spend(self.sizes[key][0])  # it is copied
            flat = _flat(self._memory, self.places[key], self.sizes[key][0])
            self._flat[key] = flat = in_our_order(aligned(flat), dtype, self._context, is_little=self._is_little)
        assert flat is not None, "tensors are built when the places are known"
        return flat


def _flat(memory: mmap.mmap | bytes, offset: int, size_bytes: int) -> torch.Tensor:
    if not size_bytes:
        return torch.empty(0, dtype=torch.uint8)
    if isinstance(memory, bytes):
        return torch.frombuffer(bytearray(memory[offset : offset + size_bytes]), dtype=torch.uint8)
    return torch.frombuffer(memory, dtype=torch.uint8, count=size_bytes, offset=offset)


def aligned(flat: torch.Tensor) -> torch.Tensor:
    """The same bytes where elements of any kind may begin. Not copied where they are, as in all zip files of torch."""
    return flat.clone() if flat.data_ptr() % _ALIGNMENT else flat


def in_our_order(flat: torch.Tensor, dtype: torch.dtype | None, context: Context, *, is_little: bool) -> torch.Tensor:
    """Bytes as this machine orders those of a number; copied only where that differs."""
    if is_little == (sys.byteorder == "little") or not flat.numel():
        return flat
    if dtype is None:
        raise context.damaged(
            "its tensors have the byte order of another machine, and do not say of which dtype they are; save it anew on a "
            "machine of this kind"
        )
    swapped = flat.clone()
    swapped.untyped_storage().byteswap(dtype)  # type: ignore[no-untyped-call]
    return swapped


def view_of(context: Context, storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> torch.Tensor:
    """A tensor in a storage, after its bounds have been checked (5 microseconds).

    Raises:
        UnsafeFileError: it reaches out of its storage, or is far larger than the file.
        TypeError: these are no numbers.
    """
    if not isinstance(storage, Storage):
        raise TypeError(f"a tensor in {describe(storage)}")
    dtype = dtype if dtype is not None else storage.dtype or torch.uint8
    sizes, strides = _sizes(size), _sizes(stride)
    if not isinstance(dtype, torch.dtype) or not _is_size(offset) or len(sizes) != len(strides):
        raise TypeError(f"a tensor of {describe((dtype, offset, size, stride))}")
    if context.is_dry:
        return torch.empty(0)
    count, last = 1, offset
    for length, step in zip(sizes, strides, strict=True):
        count *= length
        last += (length - 1) * step
    end = (last + 1 if count else offset) * dtype.itemsize
    if end > storage.size_bytes:
        raise context.unsafe(
            f"a tensor of shape {describe(sizes)} reaches to byte {end:,} of a storage of {storage.size_bytes:,} bytes"
        )
    context.spend(TENSOR_BYTES)
    context.claim((storage.key, offset, sizes, strides, dtype), count * dtype.itemsize)
    flat = storage.flat(storage.dtype)
    base = flat.storage_offset() // dtype.itemsize
    if flat.storage_offset() % dtype.itemsize:
        raise context.unsafe(f"a tensor of {dtype} begins in the middle of an element")
    return torch.empty(0, dtype=dtype).set_(flat.untyped_storage(), base + offset, sizes, strides)


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)) or len(value) > _MAX_DIMENSIONS or not all(map(_is_size, value)):
        raise TypeError(f"sizes {describe(value)}")
    return tuple(value)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE
