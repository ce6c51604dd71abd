"""Notebooks that are executed with a real kernel, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXECUTE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
folder, source = sys.argv[1:]
if source.endswith(".ipynb"):
    book = nbformat.read(source, 4)
else:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in json.loads(source)])
try:
    NotebookClient(book, timeout=100, allow_errors=True, shutdown_kernel="immediate", resources={"metadata": {"path": folder}}).execute()
except DeadKernelError:
    pass  # what was shown until then is what the notebook keeps
print(json.dumps([cell.get("outputs", []) for cell in book.cells]))
"""


@dataclass
class Shown:
    """What stands below a cell."""

    outputs: list[dict[str, Any]]

    @property
    def html(self) -> str:
        return "\n".join(
            output["data"]["text/html"] for output in self.outputs if "text/html" in output.get("data", {})
        )

    @property
    def text(self) -> str:
        plain = [output["data"].get("text/plain", "") for output in self.outputs if "data" in output]
        return "\n".join([*plain, *(output["text"] for output in self.outputs if output["output_type"] == "stream")])

    @property
    def kinds(self) -> list[str]:
        """What there is: tables and so on are data, what is printed is a stream."""
        return [output["output_type"] for output in self.outputs]

    @property
    def error(self) -> str:
        """The exception's name and text, if one was raised."""
        return "".join(f"{output['ename']}: {output['evalue']}" for output in self.outputs if "ename" in output)


def execute(source: Path | Sequence[str], folder: Path) -> list[Shown]:
    """Run a notebook's file, or cells of code, in ``folder``; what is shown below each cell."""
    given = str(source) if isinstance(source, Path) else json.dumps(list(source))
    environment = {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "OMP_NUM_THREADS": "1"}
    environment.pop("CI", None)
    command = [sys.executable, "-c", EXECUTE, str(folder), given]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [Shown(outputs) for outputs in json.loads(ended.stdout)]
