"""What it costs to save and load a model: relume beside torch and safetensors, interleaved, on one machine.

Run: ``python bench/models.py`` (needs torchvision). Every measurement is a fresh process; the page cache is warm.

save: until the call returns; relume waits for the disk, torch and safetensors do not unless it says fsync.
ready: until the model can be called. read: until, after that, each of its bytes was looked at once, because mapped weights
are read when they are used. Both are minima over the rounds.
own, all: the peak of anonymous memory and of all resident memory, beyond what the process had before; with mapped weights
the latter counts pages of the file that the system can drop. Taken in rounds of their own, so that watching costs no time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import BENCH, RESULTS, console, describe, last_line, machine, rounds, write
from rich.table import Table

WATCH_SECONDS = 0.0005


def vgg16() -> Any:
    from torchvision.models import vgg16

    return vgg16()


def vgg19() -> Any:
    from torchvision.models import vgg19

    return vgg19()


def efficientnet() -> Any:
    from torchvision.models import efficientnet_v2_s

    return efficientnet_v2_s()


MODELS: dict[str, Callable[[], Any]] = {"vgg16": vgg16, "vgg19": vgg19, "efficientnet": efficientnet}


# ---------------------------------------------------------------------------------------------------------- what is measured


def save_weights(name: str, model: Any, folder: Path) -> None:
    from relume.models.files import save_weights as save

    save(model, folder / name)


def save_model(_: str, model: Any, folder: Path) -> None:
    from relume.models.whole import save_model as save

    save(model, folder / "model.safetensors")


def save_checkpoint(_: str, model: Any, folder: Path) -> None:
    from relume.checkpoint import Store

    Store(folder / "store").save({"model": model.state_dict()})


def save_torch(_: str, model: Any, folder: Path) -> None:
    import torch

    torch.save(model.state_dict(), folder / "state.pt")


def save_torch_synced(_: str, model: Any, folder: Path) -> None:
    import torch

    with (folder / "synced.pt").open("wb") as file:
        torch.save(model.state_dict(), file)
        file.flush()
        os.fsync(file.fileno())


def save_torch_whole(_: str, model: Any, folder: Path) -> None:
    import torch

    torch.save(model, folder / "whole.pt")


def save_safetensors(_: str, model: Any, folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(model.state_dict(), folder / "plain.safetensors")


def relume_model(build: Callable[[], Any], folder: Path) -> Any:
    from relume.models.whole import load_model

    return load_model(folder / "model.safetensors")


def relume_model_verified(build: Callable[[], Any], folder: Path) -> Any:
    from relume.models.whole import load_model

    return load_model(folder / "model.safetensors", verify=True)


def relume_weights(build: Callable[[], Any], folder: Path, name: str = "weights.safetensors") -> Any:
    from relume.models.load import load_weights

    model = build()
    load_weights(model, folder / name)
    return model


def relume_weights_pt(build: Callable[[], Any], folder: Path) -> Any:
    return relume_weights(build, folder, "weights.pt")


def relume_weights_lean(build: Callable[[], Any], folder: Path) -> Any:
    from relume.checkpoint import without_values

    def lean() -> Any:
        with without_values():
            return build()

    return relume_weights(lean, folder)


def relume_import(build: Callable[[], Any], folder: Path) -> Any:
    """A whole model that torch pickled: its weights into a new model."""
    from relume.checkpoint import restore_module, without_values
    from relume.models.files import read_state

    with without_values():
        model = build()
    return restore_module(model, read_state(folder / "whole.pt"))


def _checkpoint(build: Callable[[], Any], folder: Path, verify: Any) -> Any:
    from relume.checkpoint import Store, restore_module, without_values

    with without_values():
        model = build()
    store = Store(folder / "store")
    return restore_module(model, store.load(store.list()[-1], verify=verify, part=("model",)))


def relume_checkpoint(build: Callable[[], Any], folder: Path) -> Any:
    return _checkpoint(build, folder, False)


def relume_checkpoint_verified(build: Callable[[], Any], folder: Path) -> Any:
    return _checkpoint(build, folder, True)


def torch_load(build: Callable[[], Any], folder: Path, **options: Any) -> Any:
    import torch

    model = build()
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True, **options))
    return model


def torch_load_mmap(build: Callable[[], Any], folder: Path) -> Any:
    return torch_load(build, folder, mmap=True)


def torch_load_assign(build: Callable[[], Any], folder: Path) -> Any:
    import torch

    with torch.device("meta"):
        model = build()
    model.load_state_dict(torch.load(folder / "state.pt", weights_only=True, mmap=True), assign=True)
    return model


def torch_load_whole(build: Callable[[], Any], folder: Path) -> Any:
    import torch

    return torch.load(folder / "whole.pt", weights_only=False)  # our own file; it would run whatever is in it


def safetensors_load(build: Callable[[], Any], folder: Path) -> Any:
    from safetensors.torch import load_file

    model = build()
    model.load_state_dict(load_file(folder / "plain.safetensors"))
    return model


def safetensors_load_assign(build: Callable[[], Any], folder: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    with torch.device("meta"):
        model = build()
    model.load_state_dict(load_file(folder / "plain.safetensors"), assign=True)
    return model


SAVES: dict[str, tuple[Callable[[str, Any, Path], None], str]] = {
    "relume save_model": (save_model, ""),
    "relume save_weights .safetensors": (save_weights, "weights.safetensors"),
    "relume save_weights .pt": (save_weights, "weights.pt"),
    "relume checkpoint": (save_checkpoint, ""),
    "torch.save": (save_torch, ""),
    "torch.save + fsync": (save_torch_synced, ""),
    "torch.save of the whole model": (save_torch_whole, ""),
    "safetensors save_file": (save_safetensors, ""),
}
LOADS: dict[str, Callable[[Callable[[], Any], Path], Any]] = {
    "relume load_model": relume_model,
    "relume load_model, verified": relume_model_verified,
    "relume load_weights, built without values": relume_weights_lean,
    "relume load_weights, new model": relume_weights,
    "relume load_weights .pt, new model": relume_weights_pt,
    "relume checkpoint, not verified": relume_checkpoint,
    "relume checkpoint, verified": relume_checkpoint_verified,
    "relume, from the pickled model": relume_import,
    "torch.load, load_state_dict": torch_load,
    "torch.load mmap, load_state_dict": torch_load_mmap,
    "torch.load mmap, assign, on meta": torch_load_assign,
    "torch.load of the pickled model": torch_load_whole,
    "safetensors load_file, load_state_dict": safetensors_load,
    "safetensors load_file, assign, on meta": safetensors_load_assign,
}


# ------------------------------------------------------------------------------------------------------- the child process


def child(model: str, way: str, folder: Path) -> None:
    """Get ready, say so, wait for a line, do it, and print how long it took."""
    warnings.filterwarnings("ignore")
    import torch
    import torchvision.models  # noqa: F401

    import relume.checkpoint
    import relume.models.load
    import relume.models.whole  # noqa: F401

    torch.manual_seed(0)
    build = MODELS[model]
    built = _recorded(model) if way in SAVES else None
    gc.collect()
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    if built is not None:
        save, name = SAVES[way]
        save(name, built, folder)
        result = {"ready": time.perf_counter() - start}
    else:
        loaded = LOADS[way](build, folder)
        ready = time.perf_counter() - start
        total = sum(map(_sum, loaded.state_dict().values()))
        result = {"ready": ready, "read": time.perf_counter() - start, "sum": total}
    print(json.dumps(result), flush=True)
    sys.stdin.readline()


def _sum(tensor: Any) -> float:
    """Of all elements, without much memory."""
    return float(sum(part.double().sum() for part in tensor.flatten().split(1 << 18)))


def _recorded(model: str) -> Any:
    """The model, made so that relume knows how."""
    from torchvision import models

    from relume.models.recipe import build

    name = {"efficientnet": "efficientnet_v2_s"}.get(model, model)
    return build(getattr(models, name))


# ------------------------------------------------------------------------------------------------------------- the parent


@dataclass
class Figures:
    """Minima over the rounds, in seconds and bytes; None where it was not measured."""

    ready: float | None = None
    read: float | None = None
    own_bytes: int | None = None
    all_bytes: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Measured:
    """One run of a child."""

    result: dict[str, float]
    own_bytes: int = 0
    all_bytes: int = 0
    problem: str = ""


def measure(model: str, way: str, folder: Path, *, watch: bool) -> Measured:
    """One child; ``watch`` looks at its memory meanwhile, which costs a core."""
    command = [sys.executable, __file__, "--child", model, way, str(folder)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(BENCH.parent / "src")]))
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=os.environ | {"PYTHONPATH": path}
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline().strip() != b"ready":
                return _failed(process, errors)
            own, everything = _memory(process.pid)
            process.stdin.write(b"\n")
            process.stdin.flush()
            top_own, top_all = own, everything
            while watch and not select.select([process.stdout], [], [], WATCH_SECONDS)[0]:
                now_own, now_all = _memory(process.pid)
                top_own, top_all = max(top_own, now_own), max(top_all, now_all)
            line = process.stdout.readline()
            if not line:
                return _failed(process, errors)
            return Measured(json.loads(line), top_own - own, top_all - everything)
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


def _failed(process: subprocess.Popen[bytes], errors: Any) -> Measured:
    process.wait()
    errors.seek(0)
    return Measured({}, problem=last_line(errors.read().decode(errors="replace")))


def _memory(pid: int) -> tuple[int, int]:
    """Anonymous and resident bytes of a process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmRSS"))}
    return kilobytes.get("RssAnon", 0) * 1024, kilobytes.get("VmRSS", 0) * 1024


def bench(model: str, repeats: int, folder: Path) -> dict[str, Figures]:
    """All ways of one model, taking turns; first the saves, whose files are what is loaded.

    ``repeats`` of 0 only watches, once: then the times say no more than that it runs.
    """
    figures: dict[str, Figures] = {}
    sums: dict[str, float] = {}
    for kind, ways in (("save", list(SAVES)), ("load", list(LOADS))):
        for watch, count in ((False, repeats), (True, 1)):
            for _, way, found in rounds(ways, count, lambda way, watch=watch: measure(model, way, folder, watch=watch)):
                row = figures.setdefault(f"{kind}: {way}", Figures())
                if found.problem:
                    row.problem = found.problem
                    continue
                if watch:
                    row.own_bytes, row.all_bytes = found.own_bytes, found.all_bytes
                if not watch or not repeats:
                    row.ready = min(found.result["ready"], row.ready or float("inf"))
                    if "read" in found.result:
                        row.read = min(found.result["read"], row.read or float("inf"))
                        sums[way] = found.result["sum"]
    if len(set(sums.values())) > 1:
        console.print(f"[red]The loaded models differ:[/] {sums}")
    return figures


def show(model: str, figures: dict[str, Figures]) -> None:
    table = Table("way", "ready ms", "read ms", "own MB", "all MB", title=model)
    for column in table.columns[1:]:
        column.justify = "right"
    for way, row in figures.items():
        if row.problem:
            table.add_row(way, f"[red]{row.problem[:60]}[/]", "", "", "")
            continue
        times = ("" if value is None else f"{value * 1e3:,.1f}" for value in (row.ready, row.read))
        sizes = ("" if value is None else f"{value / 1e6:,.0f}" for value in (row.own_bytes, row.all_bytes))
        table.add_row(way, *times, *sizes)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append", help="all of them unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the smallest model, once: does it still run?")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="on the disk to be measured")
    parser.add_argument("--child", nargs=3, metavar=("MODEL", "WAY", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], arguments.child[1], Path(arguments.child[2]))
        return
    chosen = ["efficientnet"] if arguments.quick else arguments.model or list(MODELS)
    repeats = 0 if arguments.quick else arguments.rounds
    arguments.folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    results: dict[str, Any] = {"machine": facts, "rounds": repeats, "models": {}}
    for model in chosen:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-models-") as folder:
            figures = bench(model, repeats, Path(folder))
        show(f"{model}, minimum of {repeats} rounds" if repeats else f"{model}, once and watched", figures)
        results["models"][model] = {way: asdict(row) for way, row in figures.items()}
    console.print(describe(facts), style="dim")
    write("models", results)


if __name__ == "__main__":
    main()
