"""Real bundles, and the same with one thing altered and the manifest made anew, as a forger would."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import write_archive
from relume.share.bundle import Bundle
from relume.share.reproduce import Reproduction, Row, Verdict

Change = Callable[[Any], Any]


def write_images(folder: Path, images: torch.Tensor, labels: list[int], *, train: bool) -> None:
    """One part of Fashion-MNIST's files, where torchvision has them."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    part = "train" if train else "t10k"
    header = struct.pack(">4I", 2051, *images.shape)
    (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, len(labels)) + bytes(labels))


def make_data(folder: Path) -> Path:
    """The first images of Fashion-MNIST: 240 to train on, 120 to test."""
    from relume.datasets import load

    split: Any = load("fashion-mnist", quiet=True)
    for part, count in ((split.train, 240), (split.test, 120)):
        images, labels = torch.as_tensor(part.data)[:count], [int(label) for label in part.targets[:count]]
        write_images(folder, images, labels, train=part is split.train)
    return folder


def images_of(folder: Path) -> tuple[torch.Tensor, list[int]]:
    """The test part of `make_data`."""
    raw = folder / "FashionMNIST" / "raw"
    pixels = bytearray((raw / "t10k-images-idx3-ubyte").read_bytes()[16:])
    labels = list((raw / "t10k-labels-idx1-ubyte").read_bytes()[8:])
    return torch.frombuffer(pixels, dtype=torch.uint8).reshape(-1, 28, 28).clone(), labels


def run_relume(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The program, in a folder of its own."""
    environment = {**os.environ, "RELUME_PROVENANCE": "off", "COLUMNS": "80", **variables}
    command = [sys.executable, "-m", "relume", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)


def altered(path: Path, out: Path, changes: dict[str, Change | bytes | None]) -> Path:
    """The bundle with some files changed: JSON by a function of what it holds, others by their bytes, None removes one."""
    bundle = Bundle.open(path)
    contents: dict[str, Any] = {}
    for name in {*bundle.members(), *changes}:
        change = changes.get(name, bundle.read(name) if name in bundle else b"")
        if change is None:
            continue
        if callable(change):
            document = json.loads(bundle.read(name))
            change = json.dumps(change(document) or document).encode()
        contents[name] = _held(change)
    write_archive(out, bundle.name, contents, bundle.manifest.relume)
    return out


def _held(content: bytes) -> Callable[[], list[bytes]]:
    return lambda: [content]


def tensor_file(state: dict[str, torch.Tensor]) -> bytes:
    """A safetensors file."""
    return b"".join(bytes(part) for part in tensorfile_parts(state))


def verdicts(found: Reproduction, stage: str) -> set[Verdict]:
    """All verdicts of a stage."""
    known = found.stage(stage)
    assert known is not None, stage
    return {row.verdict for row in known.rows}


def row_of(found: Reproduction, stage: str, claim: str) -> Row:
    """One row, by its name or the only beginning of one."""
    known = found.stage(stage)
    assert known is not None
    exact = [row for row in known.rows if row.claim == claim]
    [row] = exact or [row for row in known.rows if row.claim.startswith(claim)]
    return row
