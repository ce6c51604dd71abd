"""The raw samples of a data set, as they are before anything turns them into inputs of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch.utils.data import Subset, TensorDataset

from relume.checkpoint.tensors import as_buffer, as_bytes
from relume.datasets import read_image
from relume.datasets.transform import pillow
from relume.errors import DataError
from relume.generators import isolated

_CHUNK = 4096


def fingerprint(dataset: Any) -> tuple[str, str]:
    """A hash of all samples and labels of a data set, in order, and what it stands for, in words.

    Args:
        dataset: with ``len`` and ``[index]``. Pixels are taken before the transform where the data set has them, files as
            they lie on the disk, tensors as they are, and all else as it is delivered.

    Returns:
        blake3 in hexadecimal, the same for the same data on any machine; and its meaning.

    Raises:
        DataError: it has no length, or gives what has no bytes.

    Example:
        >>> one = fingerprint(TensorDataset(torch.arange(4.0), torch.tensor([0, 1, 0, 1])))
        >>> one == fingerprint(TensorDataset(torch.arange(4.0), torch.tensor([0, 1, 0, 1]))), one[1]
        (True, 'all 4 samples: tensors as they are')
    """
    count = length(dataset)
    for kind in (_Pixels, _Files, _Tensors):
        if (rows := kind.of(dataset)) is not None:
            form, content = rows.form, rows.content()
            covers = rows.covers
            break
    else:
        form, content, covers = (
            "delivered",
            _delivered(dataset, count),
            "as the data set gives them, after its transform",
        )
    hasher = blake3(f"relume data 1\n{count}\n{form}\n".encode())
    for piece in content:
        hasher.update(piece)
    return hasher.hexdigest(), f"all {count:,} samples: {covers}"


def have_same_rows(inputs: torch.Tensor, targets: torch.Tensor) -> bool:
    """Whether both have one row a sample."""
    return inputs.dim() > 0 and targets.dim() > 0 and len(inputs) == len(targets)


def length(dataset: Any) -> int:
    """How many samples there are; raises DataError where that is not known."""
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        raise DataError(
            f"{type(dataset).__name__} has no length: data that is only iterated cannot be named by its content. Give a data "
            "set with len() and [index], or a tuple of tensors."
        ) from None


def raw_image(dataset: Any, index: int) -> Any:
    """One sample as a PIL image, before the transform; None where the data set has no images."""
    base, index = _base(dataset, index)
    data: Any = getattr(base, "data", None)
    samples: Any = getattr(base, "samples", None)
    if _is_pixels(data):
        return pillow().fromarray(np.ascontiguousarray(np.asarray(data[index])))
    if _is_files(samples):
        return read_image(samples[index][0])
    return None


def label(dataset: Any, index: int) -> Any:
    """The label of one sample where it is kept apart from the samples; None otherwise."""
    base, index = _base(dataset, index)
    targets = getattr(base, "targets", None)
    try:
        return None if targets is None else int(targets[index])
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def labels(dataset: Any) -> list[int] | None:
    """The labels of all samples, in order; None where they are no whole numbers. Images are loaded where nothing else tells.

    Example:
        >>> labels(TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1])))
        [2, 0, 1]
    """
    base, indices = base_of(dataset)
    if type(base) is TensorDataset:
        held = base.tensors[-1]
        is_labels = held.dim() == 1 and not held.is_floating_point() and not held.is_complex()
        return (held if indices is None else held[indices]).tolist() if is_labels else None
    known = label(dataset, 0) is not None if length(dataset) else True
    found = []
    for index in range(length(dataset)):
        try:
            one = label(dataset, index) if known else dataset[index][1]
            found.append(one.__index__())
        except (AttributeError, TypeError, ValueError, IndexError, KeyError, RuntimeError):
            return None
    return found


def labels_fingerprint(labels: list[int]) -> str:
    """blake3 over labels in order: tells other labels from other samples."""
    return blake3(np.asarray(labels, "<i8").tobytes()).hexdigest()


def base_of(dataset: Any) -> tuple[Any, list[int] | None]:
    """The data set below subsets, and the numbers of the samples taken of it; None for all."""
    indices: list[int] | None = None
    while isinstance(dataset, Subset):
        own = [int(index) for index in dataset.indices]
        indices = own if indices is None else [own[index] for index in indices]
        dataset = dataset.dataset
    return dataset, indices


def _base(dataset: Any, index: int) -> tuple[Any, int]:
    while isinstance(dataset, Subset):
        index, dataset = int(dataset.indices[index]), dataset.dataset
    return dataset, index


class _Pixels:
    """``data`` and ``targets`` as torchvision's MNIST and CIFAR10, and relume's IdxImages, have them."""

    covers = "pixels before the transform, and labels"

    def __init__(self, data: Any, labels: Any, indices: list[int] | None) -> None:
        self._data = data if indices is None else data[indices]
        labels = np.asarray(labels)
        self._labels = labels if indices is None else labels[indices]
        self.form = f"uint8 {'x'.join(map(str, self._data.shape[1:]))}"

    @classmethod
    def of(cls, dataset: Any) -> _Pixels | None:
        base, indices = base_of(dataset)
        data: Any = getattr(base, "data", None)
        targets: Any = getattr(base, "targets", None)
        if not _is_pixels(data) or targets is None or getattr(base, "target_transform", None) is not None:
            return None
        return cls(data, targets, indices) if len(targets) == len(data) else None

    def content(self) -> Iterator[Any]:
        for start in range(0, len(self._data), _CHUNK):
            yield np.ascontiguousarray(np.asarray(self._data[start : start + _CHUNK])).data
        yield np.ascontiguousarray(self._labels.astype("<i8")).tobytes()


class _Files:
    """``samples``, pairs of path and label, as folders of images have them."""

    form = "files"
    covers = "the files' bytes, and labels"

    def __init__(self, samples: list[tuple[str, int]]) -> None:
        self._samples = samples

    @classmethod
    def of(cls, dataset: Any) -> _Files | None:
        base, indices = base_of(dataset)
        samples: Any = getattr(base, "samples", None)
        if not _is_files(samples) or getattr(base, "target_transform", None) is not None:
            return None
        return cls(list(samples) if indices is None else [samples[index] for index in indices])

    def content(self) -> Iterator[Any]:
        for path, label in self._samples:
            try:
                data = Path(path).read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
            yield b"%d %d\n" % (label, len(data))
            yield data


class _Tensors:
    """A TensorDataset."""

    covers = "tensors as they are"

    def __init__(self, tensors: list[torch.Tensor]) -> None:
        self._tensors = tensors
        self.form = "tensors " + ", ".join(
            f"{str(one.dtype).removeprefix('torch.')} {'x'.join(map(str, one.shape[1:]))}".strip() for one in tensors
        )

    @classmethod
    def of(cls, dataset: Any) -> _Tensors | None:
        base, indices = base_of(dataset)
        if type(base) is not TensorDataset:
            return None
        return cls([one.detach().cpu() if indices is None else one.detach().cpu()[indices] for one in base.tensors])

    def content(self) -> Iterator[Any]:
        for one in self._tensors:
            yield as_buffer(as_bytes(one.contiguous()))


def _is_pixels(data: Any) -> bool:
    if isinstance(data, torch.Tensor):
        return data.dtype == torch.uint8 and data.dim() == 3
    return isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.ndim in (3, 4)


def _is_files(samples: Any) -> bool:
    return (
        isinstance(samples, list)
        and bool(samples)
        and isinstance(samples[0], tuple)
        and len(samples[0]) == 2
        and isinstance(samples[0][0], str)
        and isinstance(samples[0][1], int)
    )


def _delivered(dataset: Any, count: int) -> Iterator[bytes]:
    for index in range(count):
        with isolated(index):  # a transform may draw
            sample = dataset[index]
        yield from _bytes_of(sample, index)


def _bytes_of(value: Any, index: int) -> Iterator[bytes]:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield bytes(as_buffer(as_bytes(value.detach().cpu().contiguous())))
    elif isinstance(value, (bytes, bytearray)):
        yield b"b%d:" % len(value) + bytes(value)
    elif value is None or isinstance(value, (bool, int, float, complex, str, np.generic)):
        yield repr(value.item() if isinstance(value, np.generic) else value).encode(errors="backslashreplace") + b"\n"
    elif isinstance(value, Mapping):
        yield b"{%d" % len(value)
        for key in value:
            yield repr(key).encode(errors="backslashreplace")
            yield from _bytes_of(value[key], index)
    elif isinstance(value, (list, tuple)):
        yield b"[%d" % len(value)
        for one in value:
            yield from _bytes_of(one, index)
    elif hasattr(value, "tobytes") and hasattr(value, "mode") and hasattr(value, "size"):  # of PIL
        yield f"{value.mode}{value.size}".encode()
        yield value.tobytes()
    else:
        raise DataError(
            f"sample {index} of the data has a {type(value).__name__} in it, of which no bytes are known: data that is packed "
            "consists of tensors, arrays, images, numbers and texts."
        )
