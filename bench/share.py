"""What packing, opening, and moving a large model cost, beside copying its weights.

A VGG-19 (575 MB) in a run is packed; ``copy twice`` writes its weights twice, with fsync, as the packing's disk work is
measured by it. ``pack`` is without examples and graph, whose cost depends on the model and stands in rows of its own.
``larger`` is what the bundle has more than the weights. The peer is ``torch.save`` of the state_dict, which checks nothing.

    python bench/share.py --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import console
from rich.table import Table


def main() -> None:
    options = parse()
    facts = harness.machine()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options)
    table = Table(title=f"{options.model}: seconds, and how much larger than the weights", title_justify="left")
    for column in ("", "seconds", "ratio", "larger"):
        table.add_column(column, justify="right" if column else "left")
    least = {name: min(times) for name, times in found["seconds"].items()}
    for name, seconds in least.items():
        size = found["sizes"].get(name)
        larger = "" if size is None else f"{100 * (size / found['weights'] - 1):+.3f}%"
        table.add_row(name, f"{seconds:.2f}", f"{seconds / least['copy twice']:.2f}", larger)
    console.print(table)
    console.print(f"{options.rounds} rounds, the least of each. {harness.describe(facts)}", style="dim")
    harness.write("share", {"machine": facts, "options": {**vars(options), "folder": ""}, **found})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (5)")
    parser.add_argument("--model", default="torchvision/vgg19")
    parser.add_argument("--folder", help="where to work; by default the system's folder for temporary files")
    parser.add_argument("--quick", action="store_true", help="a small model, one round: does it run?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.model = 1, "torchvision/squeezenet1_1"
    return options


def measure(here: Path, options: argparse.Namespace) -> dict[str, Any]:
    os.environ["RELUME_PROVENANCE"] = "off"
    import torch

    import relume

    model = relume.backbone(options.model, weights=None)
    config = {"classes": [f"class {n}" for n in range(1000)], "input": {"size": 224, "channels": 3}}
    with relume.Run("large", model=model, root=here / "runs", config=config, quiet=True) as run:
        run.log({"val/loss": 1.0})
        run.checkpoint()
    weights = here / "weights.safetensors"
    relume.save_weights(model, weights)
    state = model.state_dict()
    bundle = here / "large.relume"

    def packed(**more: Any) -> Callable[[], object]:
        settings = {"evaluate": False, "examples": 0, "graph": False, "force": True, **more}
        return lambda: relume.pack("large", bundle, root=here / "runs", **settings)

    def copy_twice() -> None:
        for name in ("one", "two"):
            shutil.copyfile(weights, here / name)
            sync(here / name)

    def save() -> None:
        torch.save(state, here / "large.pt")
        sync(here / "large.pt")

    jobs: dict[str, Callable[[], object]] = {
        "copy twice": copy_twice,
        "torch.save": save,
        "pack": packed(),
        "pack with examples": packed(examples=4),
        "pack with examples and graph": packed(examples=4, graph=True),
        "open (every byte checked)": lambda: relume.load_model(bundle),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    sizes: dict[str, int] = {}
    for _ in range(options.rounds):
        for name in jobs:
            for leftover in ("one", "two", "large.pt", *(["large.relume"] if name.startswith("pack") else [])):
                (here / leftover).unlink(missing_ok=True)
            begin = time.perf_counter()
            jobs[name]()
            seconds[name].append(time.perf_counter() - begin)
            if name.startswith("pack"):
                sizes[name] = bundle.stat().st_size
        harness.status.print(json.dumps({name: round(times[-1], 2) for name, times in seconds.items()}), style="dim")
    return {"seconds": seconds, "sizes": sizes, "weights": sum(t.numel() * t.element_size() for t in state.values())}


def sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
