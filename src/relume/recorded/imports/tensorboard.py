"""TensorBoard's event files as runs."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from relume.errors import MissingPackageError, RunError, warn
from relume.recorded.imports.writing import Imported, Importing, each_that_can_be_read, imported_before, run_name
from relume.text import counted

_MOST_BUCKETS = 100_000
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def import_tensorboard(folder: str | Path, root: str | Path = "runs", name: str | None = None) -> list[Imported]:
    """Bring TensorBoard's logs into the local record: scalars, histograms, images, texts and hyperparameters.

    As in TensorBoard, each folder with event files is a run, the event files of one folder belong together, and what was
    purged by a resume does not count. Steps and wall times are kept. A folder that was brought in before is not read again.

    Args:
        folder: holds event files, or folders that do, or is an event file.
        name: what the run is called here; by default its folder's name. Of several runs it is what their names begin with.

    Raises:
        MissingPackageError: the tensorboard package, which reads them, is not installed.
        RunError: there are no event files, or nothing in them can be read. One run of several that cannot be read is left
            out with a warning.
    """
    _require_tensorboard()
    folder, root = Path(folder), Path(root)
    places = _places(folder)
    if not places:
        raise RunError(f"there are no event files of TensorBoard in {folder} (events.out.tfevents.…), nor below it.")
    known = imported_before(root, "tensorboard")

    def read(item: tuple[Path, list[Path]]) -> Imported | None:
        place, files = item
        key = str((files[0] if folder.is_file() else place).resolve())
        if (before := known.get(key)) is not None:
            return Imported(before.name, before, str(place), is_new=False)
        wanted = _name_of(place, folder, name, alone=len(places) == 1)
        with Importing(root, wanted, str(place), "tensorboard", key) as run:
            purges = _purges(files)
            for file in files:
                _read_file(file, run, purges)
            if run.values or run.media:
                return run.finish()
            if len(places) > 1:
                return None  # such as one that holds hyperparameters alone
            raise RunError(f"nothing in the event files of {place} can be kept{_left(run)}.")

    found = each_that_can_be_read(places.items(), read)
    if not found:
        raise RunError(f"nothing in the event files below {folder} can be kept.")
    return found


def _require_tensorboard() -> None:
    try:
        import tensorboard.compat.proto.event_pb2  # noqa: F401
    except ImportError:
        raise MissingPackageError('tensorboard is not installed: pip install "relume[tensorboard]"') from None


def _places(folder: Path) -> dict[Path, list[Path]]:
    """The folders that hold event files, with these, oldest first (their names begin with the time)."""
    if folder.is_file():
        return {folder.parent: [folder]}
    found: dict[Path, list[Path]] = {}
    for place, folders, files in os.walk(folder):
        folders.sort()
        events = sorted(
            Path(place, file) for file in files if "tfevents" in file and not file.endswith(".profile-empty")
        )
        if events:
            found[Path(place)] = events
    return found


def _name_of(place: Path, folder: Path, name: str | None, *, alone: bool) -> str:
    if name is not None and alone:
        return name
    below = place.relative_to(folder).parts if folder.is_dir() else ()
    return run_name("-".join([name or place.resolve().name if not below else name or folder.resolve().name, *below]))


def _left(run: Importing) -> str:
    return (
        f" (left out: {', '.join(f'{count} of {kind}' for kind, count in run.skipped.items())})" if run.skipped else ""
    )


# ------------------------------------------------------------------------------------------------------------------ files


class _CutError(Exception):
    """A file ends within a record, or is damaged."""


def _records(path: Path, *, check: bool = True) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its CRC, content, its CRC.

    A length is believed only as far as the file goes.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    size = path.stat().st_size
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise _CutError("it ends within a record")
            length, crc = _HEADER.unpack(header)
            if masked_crc32c(header[:8]) != crc:
                raise _CutError("a record is damaged")
            if length > size - file.tell():
                raise _CutError("it ends within a record")
            data, end = file.read(length), file.read(4)
            if len(end) < 4:
                raise _CutError("it ends within a record")
            if check and masked_crc32c(data) != _CRC.unpack(end)[0]:
                raise _CutError("a record is damaged")
            yield data


def _events(path: Path, *, check: bool = True) -> Iterator[Any]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from tensorboard.compat.proto.event_pb2 import Event

    for data in _records(path, check=check):
        try:
            yield Event.FromString(data)
        except DecodeError:
            raise _CutError("a record is no event") from None


def _purges(files: list[Path]) -> list[tuple[str, int, int]]:
    """Where a resume said that all from a step on does not count: file, number of the event, step."""
    found = []
    for path in files:
        try:
            for number, event in enumerate(_events(path, check=False)):
                if event.HasField("session_log") and event.session_log.status == 1:  # START
                    found.append((path.name, number, event.step))
        except (_CutError, OSError):
            pass
    return found


def _read_file(path: Path, run: Importing, purges: list[tuple[str, int, int]]) -> None:
    number = 0
    try:
        for event in _events(path):
            limits = [step for name, place, step in purges if (name, place) > (path.name, number)]
            number += 1
            if event.HasField("summary") and not (limits and event.step >= min(limits)):
                _take(event, run)
    except _CutError as cut:
        if number == 0:
            raise RunError(f"{path} cannot be read: {cut}. It is no event file of TensorBoard, or damaged.") from None
        text = f"{path.name}: {cut}; what stands before it was imported ({counted(number, 'event')})"
        run.notes.append(text)
        warn(text)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from error


# ------------------------------------------------------------------------------------------------------------------ values


def _take(event: Any, run: Importing) -> None:
    for value in event.summary.value:
        kind = value.WhichOneof("value")
        plugin = value.metadata.plugin_data.plugin_name
        tag = value.tag or "untitled"
        step, moment = event.step, event.wall_time if math.isfinite(event.wall_time) else 0.0
        if plugin == "hparams":
            _take_settings(value.metadata.plugin_data.content, run)
        elif kind == "simple_value":
            run.add_values(step, moment, {tag: float(value.simple_value)})
        elif kind == "histo":
            content = _histogram(value.histo)
            _add(run, step, moment, tag, content, "damaged histograms")
        elif kind == "image":
            run.add_image(step, moment, tag, value.image.encoded_image_string)
        elif kind == "tensor":
            _take_tensor(run, step, moment, tag, plugin, value.tensor)
        else:
            run.skipped[str(kind or plugin or "empty values")] += 1


def _take_tensor(run: Importing, step: int, moment: float, tag: str, plugin: str, tensor: Any) -> None:
    if plugin == "text":
        for text in tensor.string_val:
            run.add_text(step, moment, tag.removesuffix("/text_summary"), text.decode("utf-8", "replace"))
    elif plugin == "images":
        for data in list(tensor.string_val)[2:]:
            run.add_image(step, moment, tag, data)
    elif plugin == "scalars":
        array = _array(tensor, 1)
        if array is None or array.size != 1:
            run.skipped["damaged scalars"] += 1
        else:
            run.add_values(step, moment, {tag: float(array.reshape(()))})
    elif plugin == "histograms":
        array = _array(tensor, 3 * _MOST_BUCKETS)
        is_right = array is not None and array.ndim == 2 and array.shape[1] == 3
        _add(run, step, moment, tag, _histogram_of(array) if is_right else None, "damaged histograms")
    else:
        run.skipped[plugin or "tensors"] += 1


def _add(run: Importing, step: int, moment: float, tag: str, content: dict[str, Any] | None, otherwise: str) -> None:
    if content is None:
        run.skipped[otherwise] += 1
    else:
        run.add_media(step, moment, tag, content)


def _array(tensor: Any, most: int) -> Any:
    """A tensor's numbers, if it has at most so many: a small message may claim any shape."""
    from tensorboard.util.tensor_util import make_ndarray

    if math.prod(dim.size for dim in tensor.tensor_shape.dim) > most:
        return None
    try:
        array = make_ndarray(tensor)
        return array if array.dtype.kind in "fiub" else None
    except (ValueError, TypeError, KeyError):
        return None


def _histogram(histo: Any) -> dict[str, Any] | None:
    """An old-style histogram: limits[i] is the right edge of bucket i; the outermost edges are the smallest and largest value."""
    counts, limits = list(histo.bucket), list(histo.bucket_limit)
    filled = [i for i, count in enumerate(counts) if count > 0]
    if not filled or len(counts) != len(limits) or len(counts) > _MOST_BUCKETS:
        return None
    first, last = filled[0], filled[-1]
    edges = [histo.min, *limits[first:last], histo.max]
    return _content(edges, counts[first : last + 1], histo.num, histo.sum, histo.sum_squares)


def _histogram_of(array: Any) -> dict[str, Any] | None:
    """A new-style histogram: a row (left, right, count) for each bucket."""
    import numpy as np

    if not len(array):
        return None
    left, right, counts = array.astype(np.float64).T
    middle = (left + right) / 2
    edges = [*left.tolist(), float(right[-1])]
    total, squares = float((counts * middle).sum()), float((counts * middle**2).sum())
    return _content(edges, counts.tolist(), float(counts.sum()), total, squares)


def _content(
    edges: list[float], counts: list[float], count: float, total: float, squares: float
) -> dict[str, Any] | None:
    if not all(map(math.isfinite, [*edges, *counts])) or any(a > b for a, b in pairwise(edges)):
        return None
    return {
        "kind": "histogram",
        "edges": edges,
        "counts": [int(c) if float(c).is_integer() else c for c in counts],
        "count": int(count),
        "min": edges[0],
        "max": edges[-1],
        "sum": total,
        "sum_squares": squares,
        "nan": 0,
        "infinite": 0,
    }


def _take_settings(content: bytes, run: Importing) -> None:
    """Hyperparameters, as the HParams plugin keeps them."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    try:
        settings = HParamsPluginData.FromString(content).session_start_info.hparams
    except DecodeError:
        run.skipped["damaged hparams"] += 1
        return
    for key, value in settings.items():
        kind = value.WhichOneof("kind")
        if kind in ("number_value", "string_value", "bool_value"):
            run.config[key] = getattr(value, kind)
