"""What a checkpoint costs: relume beside its peers, interleaved, on one machine.

Run: ``python bench/checkpoint.py`` (VGG19 needs torchvision; ``--model mlp`` needs nothing).

blocked: how long training waits for a save. total: until it is on the disk. written: bytes of files that are new.
load: a new model with the values of the checkpoint, its pages in the cache. Each is the minimum over the rounds, of three
in a row in each; every way keeps one checkpoint and deletes the one before, as trainings do. Trained parameters change
before every save.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import pathlib
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from relume.checkpoint import Store, Writer, restore_module, without_values

Build = Callable[[], nn.Module]
_TIMES = 3
"""Saves and loads in a row: the first ones find memory that is new to the process, and pages that were just written."""

RESULTS = pathlib.Path(__file__).parent / "results"


class Way:
    """One way to save and load."""

    def __init__(self, folder: pathlib.Path, build: Build) -> None:
        self.folder = folder
        self.build = build
        self.rounds = 0
        folder.mkdir()

    def next_path(self) -> pathlib.Path:
        self.rounds += 1
        return self.folder / f"{self.rounds}"

    def save(self, model: nn.Module) -> Callable[[], None]:
        """Block as long as training is blocked; what is returned waits for the rest."""
        raise NotImplementedError

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        raise NotImplementedError

    def tidy(self) -> None:
        """Delete all checkpoints but the newest."""
        for path in self.folder.iterdir():
            if path.name.split(".")[0] != str(self.rounds):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        pass


class CloneOnly(Way):
    """No way to save: the yardstick for blocking."""

    def save(self, model: nn.Module) -> Callable[[], None]:
        copies = [tensor.clone() for tensor in model.state_dict().values()]
        return copies.clear

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {}


class Relume(Way):
    def __init__(self, folder: pathlib.Path, build: Build) -> None:
        super().__init__(folder, build)
        self.store = Store(folder)
        self.writer = Writer(self.store)

    def save(self, model: nn.Module) -> Callable[[], None]:
        frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
        self.writer.save({"model": model.state_dict()}, constant=frozen)
        return lambda: (self.writer.wait(), None)[1]

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {
            "verified": lambda: self._load(True),
            "verified by hash": lambda: self._load("hash"),
            "not verified": lambda: self._load(False),
        }

    def _load(self, verify: Any) -> nn.Module:
        with without_values():
            model = self.build()
        store = Store(self.folder)
        return restore_module(model, store.load(store.list()[-1], verify=verify, part=("model",)))

    def tidy(self) -> None:
        for checkpoint in self.store.list()[:-1]:
            self.store.delete(checkpoint)
        self.store.gc(dry_run=False)

    def close(self) -> None:
        self.writer.close()


class TorchSave(Way):
    fsync = False

    def save(self, model: nn.Module) -> Callable[[], None]:
        with self.next_path().open("wb") as file:
            torch.save(model.state_dict(), file)
            if self.fsync:
                file.flush()
                os.fsync(file.fileno())
        return lambda: None

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {"": lambda: self._load(False), "mmap": lambda: self._load(True)}

    def _load(self, mmap: bool) -> nn.Module:
        model = self.build()
        path = str(self.folder / f"{self.rounds}")
        model.load_state_dict(torch.load(path, weights_only=True, mmap=mmap))
        return model


class TorchSaveSynced(TorchSave):
    fsync = True

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {}


class Safetensors(Way):
    def save(self, model: nn.Module) -> Callable[[], None]:
        from safetensors.torch import save_file

        save_file(model.state_dict(), self.next_path())
        return lambda: None

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {"": self._load}

    def _load(self) -> nn.Module:
        from safetensors.torch import load_file

        model = self.build()
        model.load_state_dict(load_file(self.folder / f"{self.rounds}"))
        return model


class Distributed(Way):
    def save(self, model: nn.Module) -> Callable[[], None]:
        import torch.distributed.checkpoint as dcp

        dcp.save(model.state_dict(), checkpoint_id=self.next_path(), no_dist=True)
        return lambda: None

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {"": self._load}

    def _load(self) -> nn.Module:
        import torch.distributed.checkpoint as dcp

        model = self.build()
        state = model.state_dict()
        dcp.load(state, checkpoint_id=self.folder / f"{self.rounds}", no_dist=True)
        model.load_state_dict(state)
        return model


class DistributedAsync(Distributed):
    def __init__(self, folder: pathlib.Path, build: Build) -> None:
        super().__init__(folder, build)
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        options = StagingOptions(
            use_pinned_memory=False, use_shared_memory=False, use_async_staging=False, use_non_blocking_copy=False
        )
        self._stager = DefaultStager(options)

    def save(self, model: nn.Module) -> Callable[[], None]:
        import torch.distributed.checkpoint as dcp

        result: Any = dcp.async_save(
            model.state_dict(), checkpoint_id=self.next_path(), async_stager=self._stager, no_dist=True
        )
        future = getattr(result, "upload_completion", result)
        return lambda: (future.result(), None)[1]

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {}


class Lightning(Way):
    """What ``ModelCheckpoint`` calls when it saves, with the trainer's own strategy."""

    def __init__(self, folder: pathlib.Path, build: Build) -> None:
        super().__init__(folder, build)
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.model = model

        self._module: Any = Module
        self._trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip

    def save(self, model: nn.Module) -> Callable[[], None]:
        self._trainer.strategy.connect(self._module(model))
        self._trainer.save_checkpoint(f"{self.next_path()}.ckpt", weights_only=True)
        return lambda: None

    def loads(self) -> dict[str, Callable[[], nn.Module]]:
        return {"": self._load}

    def _load(self) -> nn.Module:
        path = self.folder / f"{self.rounds}.ckpt"
        return self._module.load_from_checkpoint(path, model=self.build(), map_location="cpu").model


WAYS: dict[str, type[Way]] = {
    "relume": Relume,
    "clone, not saved": CloneOnly,
    "torch.save": TorchSave,
    "torch.save + fsync": TorchSaveSynced,
    "safetensors": Safetensors,
    "DCP save": Distributed,
    "DCP async_save": DistributedAsync,
    "Lightning ModelCheckpoint": Lightning,
}


@dataclass
class Figures:
    """The minima over all rounds; and what the first save wrote."""

    blocked: float = float("inf")
    total: float = float("inf")
    written: float = float("inf")
    written_first: int | None = None
    loads: dict[str, float] = field(default_factory=dict)


def vgg19() -> nn.Module:
    from torchvision.models import vgg19

    return vgg19(weights=None)


class Tuned(nn.Module):
    """A frozen VGG19 with a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = vgg19().requires_grad_(False)
        self.head = nn.Linear(1000, 1)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


MODELS: dict[str, Build] = {"vgg19": vgg19, "vgg19-frozen": Tuned, "mlp": mlp}


def measure(build: Build, rounds: int, folder: pathlib.Path, console: Console) -> dict[str, Figures]:
    model = build()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    ways: dict[str, Way] = {}
    for name, kind in WAYS.items():
        try:
            ways[name] = kind(folder / kind.__name__, build)
        except ImportError as error:
            console.print(f"{name} is left out: {error}")
    figures = {name: Figures() for name in ways}
    for number in range(rounds):
        # Whoever follows a way that frees much memory finds warm pages: the order is another one each round.
        for name, way in random.Random(number).sample(sorted(ways.items()), len(ways)):
            _round(way, model, trained, figures[name])
    for way in ways.values():
        way.close()
    return figures


def _round(way: Way, model: nn.Module, trained: list[nn.Parameter], figures: Figures) -> None:
    for _ in range(_TIMES):
        with torch.no_grad():
            torch._foreach_add_(trained, 1e-4)
        _save(way, model, figures)
    for name, load in way.loads().items():
        for _ in range(_TIMES):
            start = time.perf_counter()
            loaded = load()
            seconds = time.perf_counter() - start
            assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values())), name
            figures.loads[name] = min(figures.loads.get(name, float("inf")), seconds)
            del loaded


def _save(way: Way, model: nn.Module, figures: Figures) -> None:
    gc.collect()
    before = _files(way.folder)
    start = time.perf_counter()
    finish = way.save(model)
    blocked = time.perf_counter() - start
    finish()
    total = time.perf_counter() - start
    written = sum(size for path, size in _files(way.folder).items() if path not in before)
    figures.written_first = written if figures.written_first is None else figures.written_first
    figures.blocked = min(figures.blocked, blocked)
    figures.total = min(figures.total, total)
    figures.written = min(figures.written, written)
    way.tidy()


def _files(folder: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def show(title: str, figures: dict[str, Figures], console: Console) -> None:
    table = Table("way", "blocked ms", "total ms", "written", "load ms", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in figures.items():
        loads = [f"{seconds * 1e3:.1f} {kind}".strip() for kind, seconds in row.loads.items()]
        blocked, total = f"{row.blocked * 1e3:.1f}", f"{row.total * 1e3:.1f}"
        table.add_row(name, blocked, total, f"{row.written:,.0f}", "\n".join(loads))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, action="append", help="all of them unless given")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--folder", type=pathlib.Path, default=RESULTS, help="on the disk to be measured")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS / "checkpoint.json")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    console = Console()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
    }
    for model in arguments.model or MODELS:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-checkpoint-") as folder:
            figures = measure(MODELS[model], arguments.rounds, pathlib.Path(folder), console)
        show(f"{model}, minimum of {arguments.rounds} rounds, {os.cpu_count()} cores", figures, console)
        results[model] = {name: vars(row) for name, row in figures.items()}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1))
    console.print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
