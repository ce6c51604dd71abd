"""Where the benchmarks find Fashion-MNIST: a folder in torchvision's layout, made from whatever is at hand."""

from __future__ import annotations

import gzip
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
PARTS = ("train", "t10k")
IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"


def full() -> Path:
    """The root of all 70,000 images: what is there already, else Debian's package, else a download."""
    if not _is_complete(ROOT) and DEBIAN.is_dir():
        _raw(ROOT).mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            for name in (IMAGES.format(part), LABELS.format(part)):
                with gzip.open(DEBIAN / f"{name}.gz") as packed, (_raw(ROOT) / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    if not _is_complete(ROOT):
        download = "import sys, torchvision; torchvision.datasets.FashionMNIST(sys.argv[1], download=True)"
        subprocess.run([sys.executable, "-c", download, ROOT], check=True)  # keeps torch out of this process
    return ROOT


def slice_of(images: int, folder: Path) -> Path:
    """The first ``images`` of both parts, written below ``folder``; random pixels where there is nothing to cut."""
    source = full() if _is_complete(ROOT) or DEBIAN.is_dir() else None
    _raw(folder).mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        name = IMAGES.format(part)
        size = images * 28 * 28
        pixels = (_raw(source) / name).read_bytes()[16 : 16 + size] if source else random.Random(0).randbytes(size)
        (_raw(folder) / name).write_bytes(struct.pack(">4i", 2051, images, 28, 28) + pixels)
        name = LABELS.format(part)
        labels = (_raw(source) / name).read_bytes()[8 : 8 + images] if source else bytes(i % 10 for i in range(images))
        (_raw(folder) / name).write_bytes(struct.pack(">2i", 2049, images) + labels)
    return folder


def _raw(root: Path) -> Path:
    return root / "FashionMNIST" / "raw"


def _is_complete(root: Path) -> bool:
    return all((_raw(root) / form.format(part)).is_file() for part in PARTS for form in (IMAGES, LABELS))
