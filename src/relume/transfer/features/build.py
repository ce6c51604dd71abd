"""Computing the features of all samples, in memory or into a file, and deciding whether that is worth its time."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch

from relume import tree
from relume.data import budget_bytes
from relume.data.memory import NotEligible
from relume.errors import StoreWriteError
from relume.transfer.features.cost import Estimate
from relume.transfer.features.cut import Cut
from relume.transfer.features.kept import FeatureFolder, Shape
from relume.transfer.features.rows import agree
from relume.transfer.features.samples import Samples
from relume.transfer.features.setting import Setting
from relume.transfer.features.table import FeatureTable, features_in, inputs_of, target_in

_TRIED = 2  # chunks after which it is decided; the first one also warms up
open_tables: WeakValueDictionary[str, FeatureTable] = WeakValueDictionary()
"""Tables of this process by key, so that heads and runs share one."""


@dataclass
class Built:
    """A table, and what is to be said of it.

    Attributes:
        how: where it comes from, in words.
        seconds: what computing it took; 0 where it was there already.
        note: what went wrong without being in the way, or nothing.
    """

    table: FeatureTable
    how: str
    seconds: float
    note: str = ""


def compute(lower: torch.nn.Module, batch: Any, setting: Setting) -> tuple[list[torch.Tensor], Any]:
    """The features of a batch, and its target, on the CPU, in the dtype in which they are computed."""
    inputs, named, target, _ = inputs_of(batch)
    inputs, named = tree.move(inputs, setting.device), tree.move(named, setting.device)
    with torch.no_grad(), setting.autocast():
        features = lower(*inputs, **named)
    count = tree.samples(batch)
    for one in features:
        if one.shape[0] != count:
            raise NotEligible(f"its features have {one.shape[0]} rows for {count} samples")
    if not isinstance(target, torch.Tensor):
        raise NotEligible("its targets are more than one tensor")
    return [one.detach().cpu() for one in features], target


def stored(features: list[torch.Tensor], dtype: torch.dtype | None) -> list[torch.Tensor]:
    """Features as they are stored: in ``dtype``, where one is asked for."""
    return [one.to(dtype) if dtype is not None and one.is_floating_point() else one for one in features]


def build(
    cut: Cut, samples: Samples, setting: Setting, key: str | None, folder: FeatureFolder | None, estimate: Estimate
) -> Built:
    """Compute the table of all samples.

    Raises:
        NotEligible: it is not worth its time, or there is no room for it.
    """
    started = time.perf_counter()
    views = samples.views or 1
    chunks = _computed(cut, samples, setting)
    first: list[tuple[list[torch.Tensor], Any]] = []
    seconds = []
    for _ in range(_TRIED):
        before = time.perf_counter()
        chunk = next(chunks, None)
        if chunk is None:
            break
        seconds.append((time.perf_counter() - before) / len(chunk[1]))
        first.append(chunk)
    shape = _shape(first[0], samples, views, setting, batch=samples.some([0]))
    estimate.learn(min(seconds), shape.size_bytes, is_kept=folder is not None)
    estimate.require_gain()

    def columns() -> Iterator[list[torch.Tensor]]:
        position = 0
        for features, target in _both(first, chunks):
            position += len(target)
            found = [*stored(features, setting.dtype), target]
            for one, (dtype, row) in zip(found, shape.columns, strict=True):
                if one.dtype != dtype or tuple(one.shape[1:]) != row:
                    raise NotEligible("its samples give features of different shapes or dtypes")
            yield found
        if position != shape.rows:
            raise NotEligible(f"its loader gave {position:,} samples instead of {shape.rows:,}")

    if shape.size_bytes <= budget_bytes():
        table = _in_memory(shape, columns())
        note = _keep(table, shape, key, folder, cut) if folder is not None and key is not None else ""
        where = "in memory"
    else:
        table = _in_file(shape, columns, key, folder, cut)
        note, where = "", "in a file"
    table.key = key
    if key is not None:
        open_tables[key] = table
    return Built(table, f"{shape.size_bytes / 1e6:,.1f} MB {where}", time.perf_counter() - started, note)


def _computed(cut: Cut, samples: Samples, setting: Setting) -> Iterator[tuple[list[torch.Tensor], Any]]:
    for view in range(samples.views or 1):
        for batch in samples.chunks(view):
            yield compute(cut.lower, batch, setting)


def _both(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    while first:
        yield first.pop(0)
    yield from rest


def _shape(chunk: tuple[list[torch.Tensor], Any], samples: Samples, views: int, setting: Setting, batch: Any) -> Shape:
    features, target = chunk
    return Shape(
        features=tuple((one.dtype, tuple(one.shape[1:])) for one in stored(features, setting.dtype)),
        dtypes=tuple(one.dtype for one in features),
        target=(target.dtype, tuple(target.shape[1:])),
        count=samples.count,
        views=views,
        is_mapping=isinstance(batch, dict),
    )


def _in_memory(shape: Shape, chunks: Iterator[list[torch.Tensor]]) -> FeatureTable:
    columns = [torch.empty((shape.rows, *row), dtype=dtype) for dtype, row in shape.columns]
    position = 0
    for chunk in chunks:
        count = len(chunk[-1])
        for column, values in zip(columns, chunk, strict=True):
            column[position : position + count] = values
        position += count
    return shape.table(columns)


def _keep(table: FeatureTable, shape: Shape, key: str, folder: FeatureFolder, cut: Cut) -> str:
    """Write a table that lies in memory, for other runs; returns why that was not possible, or nothing."""
    free = _free_bytes(folder.root)
    if shape.size_bytes > free / 2:
        return f"the features are not kept on the disk: {shape.size_bytes / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"
    try:
        folder.write(key, shape, lambda: iter([list(tree.tensors(table.rows))]), _about(cut))
    except StoreWriteError as error:
        return f"the features are not kept on the disk: {error}"
    return ""


def _in_file(shape: Shape, columns: Any, key: str | None, folder: FeatureFolder | None, cut: Cut) -> FeatureTable:
    needed, budget = shape.size_bytes / 1e6, budget_bytes() / 1e6
    if folder is None:
        raise NotEligible(
            f"the features need {needed:,.0f} MB, the memory budget is {budget:,.0f} MB and there is no root"
        )
    free = _free_bytes(folder.root)
    if shape.size_bytes > free / 2:
        raise NotEligible(
            f"the features need {needed:,.0f} MB, the memory budget is {budget:,.0f} MB and the disk has "
            f"{free / 1e6:,.0f} MB free"
        )
    key = key or secrets.token_hex(16)  # of this process alone; gc takes it away
    folder.write(key, shape, columns, _about(cut))
    table = folder.find(key)
    if table is None:
        raise NotEligible("the features on the disk are not what was written")
    return table


def _free_bytes(root: Path) -> int:
    while not root.exists():
        root = root.parent
    return shutil.disk_usage(root).free


def _about(cut: Cut) -> dict[str, Any]:
    return {"after": cut.after, "created": time.time(), "torch": torch.__version__}


def rows_agree(
    cut: Cut, table: FeatureTable, samples: Samples, setting: Setting, indices: list[int], view: int = 0
) -> bool:
    """Whether a few samples, fetched and computed anew, still are their rows: bit for bit, or within the tolerance."""
    try:
        features, target = compute(cut.lower, samples.some(indices, view), setting)
    except Exception:
        return False
    before, table.epoch = table.epoch, view
    try:
        batch = table.batch(indices)
    finally:
        table.epoch = before
    count = len(table.dtypes)
    if not torch.equal(target_in(batch, count), target) or len(features) != count:
        return False
    tolerance = None if setting.dtype is None else 2e-2
    return all(agree(one, other, tolerance) for one, other in zip(features, features_in(batch, count), strict=True))
