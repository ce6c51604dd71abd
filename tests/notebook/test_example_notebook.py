"""The first notebook runs from top to bottom in a real kernel, and all are kept without their outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernels import execute

NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples" / "notebooks").glob("*.ipynb"))


def test_there_is_an_example() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    book = json.loads(path.read_text("utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    kept = [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert not kept, (
        "clear the outputs before you commit: jupyter nbconvert --clear-output --inplace, or in the menu Edit"
    )
    assert (
        set(book["metadata"]) == {"kernelspec", "language_info"} and book["metadata"]["kernelspec"]["name"] == "python3"
    )
    assert sum(len(cell["source"]) for cell in code) < 100


def test_the_notebook_runs_in_a_kernel(tmp_path: Path) -> None:
    cells = execute(NOTEBOOKS[-1].with_name("fashion_mnist.ipynb"), tmp_path)
    assert [cell.error for cell in cells if cell.error] == []
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    assert any("<svg" in cell.html and "val/accuracy" in cell.html for cell in cells)
    assert any("resumes from stopped@" in cell.text for cell in cells)
    assert any(cell.text.endswith("\nTrue") for cell in cells), "a run that was stopped ends as one that was not"
    assert "<iframe" in cells[-1].html
    assert list((tmp_path / "runs" / "board" / "tensorboard").rglob("*tfevents*"))
