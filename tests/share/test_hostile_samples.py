"""A sample that contradicts itself is refused by name, before anything is computed with it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from relume.errors import RelumeError
from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import write_archive
from relume.share.bundle import Bundle
from relume.share.data import open_data
from relume.share.documents import INPUT, DataSet, Preprocessing
from relume.share.sampling import LABELS, open_sample


def bundle(
    folder: Path, tensors: dict[str, torch.Tensor], settings: dict[str, Any] | None = None, files: int = 0
) -> Bundle:
    content = io.BytesIO()
    Image.new("L", (8, 8)).save(content, format="PNG")
    parts: Any = {LABELS: lambda: list(tensorfile_parts(tensors))}
    parts |= {f"sample/{n:05}.png": lambda: [content.getvalue()] for n in range(files)}
    facts = {"format": 1, "kind": "image", "settings": settings or {"size": 8, "channels": 1}}
    parts[INPUT] = lambda: [json.dumps(facts).encode()]
    write_archive(folder / "one.relume", "one", parts, "0")
    return Bundle.open(folder / "one.relume")


@pytest.mark.parametrize(
    ("tensors", "settings", "files"),
    [
        ({"target": torch.tensor(1)}, None, 0),
        ({"target": torch.zeros(2), "input": torch.tensor(1.0)}, None, 0),
        ({"target": torch.zeros(2, dtype=torch.int64), "input": torch.zeros(3, 1)}, None, 0),
        ({"target": torch.zeros(2, 3, dtype=torch.int64)}, None, 2),
        ({"target": torch.full((2,), float("nan"))}, None, 2),
        ({"target": torch.zeros(2, dtype=torch.int64)}, None, 3),
        ({"target": torch.zeros(2, dtype=torch.int64)}, {"size": 10**9, "channels": 1}, 2),
        ({"target": torch.zeros(2, dtype=torch.int64)}, {"size": -4, "channels": 1}, 2),
        ({"target": torch.zeros(2, dtype=torch.int64)}, {"size": 8, "channels": 10**8}, 2),
    ],
)
def test_a_sample_that_contradicts_itself_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], settings: dict[str, Any] | None, files: int
) -> None:
    with pytest.raises(RelumeError):
        open_sample(bundle(tmp_path, tensors, settings, files))


@pytest.mark.parametrize("options", [{"indices": [-1]}, {"indices": [True]}, {"indices": "all"}, {"indices": [10**30]}])
def test_samples_that_the_data_does_not_have_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    from relume.models import save_weights

    save_weights({"input": torch.zeros(3, 2), "target": torch.zeros(3)}, tmp_path / "data.safetensors")
    facts = DataSet(role="test", kind="tensors", options=options)
    with pytest.raises(RelumeError, match="none of its 3"):
        open_data(facts, Preprocessing(kind="tensors"), tmp_path / "data.safetensors")


@pytest.mark.parametrize(
    "tensors",
    [{"input": torch.tensor(1.0), "target": torch.zeros(3)}, {"input": torch.zeros(3), "target": torch.tensor(1)}],
)
def test_data_without_rows_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    from relume.models import save_weights

    save_weights(tensors, tmp_path / "data.safetensors")
    with pytest.raises(RelumeError, match="one row a sample|inputs and"):
        open_data(DataSet(role="test", kind="tensors"), Preprocessing(kind="tensors"), tmp_path / "data.safetensors")
