"""Meshes and clouds of points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from relume.errors import ConfigurationError
from relume.monitor.kinds.arrays import Array, Snapshot, snapshot
from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.files import keep


class Mesh(Media):
    """A mesh, or without faces a cloud of points.

    Args:
        vertices: shape (V, 3), real numbers; (1, V, 3) is taken too, as TensorBoard has it.
        colors: shape (V, 3), one a vertex: whole numbers from 0 to 255, or fractions from 0 to 1.
        faces: shape (F, 3), whole numbers: the vertices of each triangle.

    Raises:
        ConfigurationError: a shape or a type does not fit, or a face names a vertex that is not there.

    Example:
        >>> Mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], faces=[[0, 1, 3]])
        Traceback (most recent call last):
        ...
        relume.errors.ConfigurationError: Mesh: faces name vertex 3, and there are 3, counted from 0.
    """

    kind = "mesh"

    def __init__(self, vertices: Any, colors: Any = None, faces: Any = None) -> None:
        self._vertices = _triples(vertices, "vertices")
        self._count = self._vertices.shape[-2]
        self._colors = None if colors is None else _triples(colors, "colors")
        self._faces = None if faces is None else _triples(faces, "faces")
        if self._colors is not None and self._colors.shape[-2] != self._count:
            raise ConfigurationError(
                f"Mesh: there are {self._count} vertices and {self._colors.shape[-2]} colors. Give one colour a vertex."
            )
        if self._faces is not None and self._faces.size and not self._faces.is_whole:
            raise ConfigurationError(
                f"Mesh: faces must be whole numbers, the places of vertices, not {self._faces.dtype}."
            )
        if self._faces is not None and self._faces.is_ready():
            _check_faces(self._faces.read(), self._count)

    def describe(self, folder: Path) -> Content:
        from safetensors.numpy import save

        arrays = {"vertices": self._vertices.read().reshape(-1, 3).astype(np.float32)}
        if self._colors is not None:
            arrays["colors"] = _bytes(self._colors)
        if self._faces is not None:
            faces = self._faces.read().reshape(-1, 3)
            _check_faces(faces, self._count)
            arrays["faces"] = faces.astype(np.int32)
        data = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        return {"file": keep(folder, data, "safetensors"), "count": self._count}


def _triples(value: Any, what: str) -> Snapshot:
    made = snapshot(value, f"Mesh: {what}")
    shape = made.shape[1:] if len(made.shape) == 3 and made.shape[0] == 1 else made.shape
    if len(shape) != 2 or shape[1] != 3 or (what == "vertices" and not shape[0]):
        raise ConfigurationError(f"Mesh: {what} must have the shape (N, 3), not {made.shape}.")
    return made


def _check_faces(faces: Array, count: int) -> None:
    if faces.size and not 0 <= int(faces.min()) <= int(faces.max()) < count:
        wrong = int(faces.min()) if faces.min() < 0 else int(faces.max())
        raise ConfigurationError(f"Mesh: faces name vertex {wrong}, and there are {count}, counted from 0.")


def _bytes(colors: Snapshot) -> Array:
    values = colors.read().reshape(-1, 3)
    if not colors.is_whole:
        values = np.nan_to_num(values, nan=0.0, posinf=1.0, neginf=0.0) * 255 + 0.5
    return values.clip(0, 255).astype(np.uint8)
