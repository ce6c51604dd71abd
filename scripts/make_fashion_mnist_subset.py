"""Make the subset of Fashion-MNIST that relume's wheel carries, from the files of the whole dataset.

    python scripts/make_fashion_mnist_subset.py [SOURCE_FOLDER] [TARGET_FOLDER]

Each class gives equally many images, taken at equal distances over the class, in their original order; no random
numbers, so the same source always gives the same subset. The result is four gzipped IDX files, the format of the
source.
"""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np

SOURCE = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
TARGET = Path(__file__).parents[1] / "src/relume/datasets/fashion_mnist_subset"
PER_CLASS = {"train": 500, "t10k": 150}
LIMIT_BYTES = 3_000_000


def chosen(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices, ascending, of ``per_class`` samples of each class at equal distances."""
    picked = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        picked.append(positions[np.arange(per_class) * len(positions) // per_class])
    return np.sort(np.concatenate(picked))


def read(path: Path) -> np.ndarray:
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def write(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


def main(source: Path = SOURCE, target: Path = TARGET) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for part, per_class in PER_CLASS.items():
        images = read(source / f"{part}-images-idx3-ubyte.gz")
        labels = read(source / f"{part}-labels-idx1-ubyte.gz")
        indices = chosen(labels, per_class)
        write(target / f"{part}-images-idx3-ubyte.gz", images[indices])
        write(target / f"{part}-labels-idx1-ubyte.gz", labels[indices])
    size_bytes = sum(path.stat().st_size for path in target.glob("*.gz"))
    if size_bytes > LIMIT_BYTES:
        raise SystemExit(f"the subset has {size_bytes:,} bytes, more than {LIMIT_BYTES:,}")
    sys.stdout.write(f"{size_bytes:,} bytes in {target}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
