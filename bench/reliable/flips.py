"""One bit of a saved checkpoint flips: does loading it notice?"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reliable import forks

SHORT_BYTES = 64  # tensors shorter than this are not looked for in the files
Training = tuple[nn.Module, torch.optim.Optimizer]


def trained() -> Training:
    """mobilenet_v3_small and AdamW after one update: 31 MB."""
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    model = mobilenet_v3_small(weights=None)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    optimizer.step()
    return model, optimizer


def states(training: Training) -> dict[str, Any]:
    return {"model": training[0].state_dict(), "optimizer": training[1].state_dict()}


class Format:
    """One format of checkpoints: ``save`` once, ``load`` again and again."""

    def save(self, training: Training, folder: Path) -> None:
        torch.save(states(training), folder / "checkpoint.pt")

    def load(self, folder: Path) -> Any:
        """Nested states, as they are after loading."""
        return torch.load(folder / "checkpoint.pt", weights_only=True)


class Relume(Format):
    def save(self, training: Training, folder: Path) -> None:
        from relume.checkpoint import Store

        Store(folder).save(states(training))

    def load(self, folder: Path) -> Any:
        from relume.checkpoint import Store

        loaded = Store(folder).load_newest()
        if loaded is None:
            raise FileNotFoundError("no checkpoint")
        return loaded.state


class Mapped(Format):
    def load(self, folder: Path) -> Any:
        return torch.load(folder / "checkpoint.pt", weights_only=True, mmap=True)


class Safetensors(Format):
    def save(self, training: Training, folder: Path) -> None:
        from safetensors.torch import save_file

        tensors = dict(leaves(states(training)))
        save_file({k: v for k, v in tensors.items() if isinstance(v, torch.Tensor)}, folder / "checkpoint.safetensors")

    def load(self, folder: Path) -> Any:
        from safetensors.torch import load_file

        return load_file(folder / "checkpoint.safetensors")


class Distributed(Format):
    def save(self, training: Training, folder: Path) -> None:
        import torch.distributed.checkpoint as dcp

        self.tensors = {k: v for k, v in leaves(states(training)) if isinstance(v, torch.Tensor)}
        dcp.save(self.tensors, checkpoint_id=folder, no_dist=True)

    def load(self, folder: Path) -> Any:
        import torch.distributed.checkpoint as dcp

        found = {name: torch.full_like(tensor, 7) for name, tensor in self.tensors.items()}
        dcp.load(found, checkpoint_id=folder, no_dist=True)
        return found


class Lightning(Format):
    def save(self, training: Training, folder: Path) -> None:
        import lightning as L

        model, optimizer = training

        class Module(L.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = model

            def training_step(self, batch: Any, number: int) -> torch.Tensor:
                return self.net(batch).sum()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return optimizer

        self.module = Module()
        trainer = L.Trainer(
            max_steps=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(self.module, torch.utils.data.DataLoader(torch.randn(2, 3, 64, 64), batch_size=2))
        trainer.save_checkpoint(folder / "checkpoint.ckpt")
        self.optimizer = optimizer

    def load(self, folder: Path) -> Any:
        from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

        saved = TorchCheckpointIO().load_checkpoint(folder / "checkpoint.ckpt")
        self.module.load_state_dict(saved["state_dict"])
        self.optimizer.load_state_dict(saved["optimizer_states"][0])
        return saved


class Accelerate(Format):
    """A folder with safetensors, a pickled optimizer and the generators' states."""

    def save(self, training: Training, folder: Path) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=True)
        self.model, self.optimizer = self.accelerator.prepare(*training)
        self.accelerator.save_state(str(folder))

    def load(self, folder: Path) -> Any:
        forks.seed(1)
        self.accelerator.load_state(str(folder))
        drawn = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
        return states((self.model, self.optimizer)) | drawn


class Ignite(Format):
    def save(self, training: Training, folder: Path) -> None:
        from ignite.engine import Engine
        from ignite.handlers import Checkpoint, DiskSaver

        self.things = dict(zip(("model", "optimizer"), training, strict=True))
        Checkpoint(self.things, DiskSaver(str(folder)))(Engine(lambda *_: None))

    def load(self, folder: Path) -> Any:
        from ignite.handlers import Checkpoint

        Checkpoint.load_objects(self.things, checkpoint=str(next(folder.glob("*.pt"))))
        return {name: thing.state_dict() for name, thing in self.things.items()}


# ----------------------------------------------------------------------------------------------------------- the test


@dataclass(frozen=True)
class Contestant:
    key: str
    label: str
    packages: tuple[str, ...]
    format: type[Format] | None


ALL = [
    Contestant("store", "relume", ("relume", "torchvision"), Relume),
    Contestant("hand", "torch.save", ("torchvision",), Format),
    Contestant("hand-mapped", "torch.save, mmap=True", ("torchvision",), Mapped),
    Contestant("safetensors", "safetensors", ("safetensors", "torchvision"), Safetensors),
    Contestant("dcp", "DCP", ("torchvision",), Distributed),
    Contestant("lightning", "Lightning .ckpt", ("lightning", "torchvision"), Lightning),
    Contestant("accelerate", "Accelerate", ("accelerate", "torchvision"), Accelerate),
    Contestant("ignite", "Ignite", ("ignite", "torchvision"), Ignite),
    Contestant("fastai", "fastai", ("fastai",), None),
]


@dataclass(frozen=True)
class Span:
    """Bytes ``begin`` to ``end`` of a file."""

    path: Path
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


def measure(contestant: Contestant, options: Any) -> dict[str, Any]:
    assert contestant.format is not None
    made, draws = contestant.format(), random.Random(5)
    with tempfile.TemporaryDirectory(prefix="relume-bench-") as scratch:
        folder = Path(scratch)
        made.save(trained(), folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        everything = [Span(path, 0, path.stat().st_size) for path in paths]
        expected = {name: _copied(value) for name, value in leaves(made.load(folder))}
        between = list(_between(everything, [v for v in expected.values() if isinstance(v, torch.Tensor)]))

        def look() -> str:
            return _difference(dict(leaves(made.load(folder))), expected)

        assert look() == "nothing"
        found: dict[str, Any] = {"bytes": _bytes(everything), "bytes_between": _bytes(between)}
        for where, spans in (("anywhere", everything), ("between", between)):
            trials = [_flip_and_look(spans, draws, look, folder) for _ in range(options.flips)]
            found[where] = _counts(trials) | {"trials": trials}
        assert look() == "nothing", "the files must be whole again"
        return found


def leaves(nested: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested states, by its place."""
    if isinstance(nested, dict):
        inside = list(nested.items())
    elif isinstance(nested, (list, tuple)):
        inside = list(enumerate(nested))
    else:
        yield path, nested
        return
    yield f"{path} keys", [repr(key) for key, _ in inside]
    for key, value in inside:
        yield from leaves(value, f"{path}/{key}")


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    if found.keys() != expected.keys():
        return "names"
    for name, value in expected.items():
        if not _is_same(found[name], value):
            return "tensors" if isinstance(value, torch.Tensor) else "other values"
    return "nothing"


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, torch.Tensor):
        if not isinstance(found, torch.Tensor) or (found.dtype, found.shape) != (expected.dtype, expected.shape):
            return False
        return torch.equal(*(t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (found, expected)))
    if isinstance(expected, np.ndarray):
        return isinstance(found, np.ndarray) and found.dtype == expected.dtype and np.array_equal(found, expected)
    return type(found) is type(expected) and bool(found == expected)


def _between(files: list[Span], tensors: list[torch.Tensor]) -> Iterator[Span]:
    """What of the files is no tensor: names, shapes, offsets, checksums, padding, and numbers of a few bytes."""
    needles = {bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()) for tensor in tensors}
    for file in files:
        data, taken = file.path.read_bytes(), np.zeros(file.size_bytes, bool)
        for needle in needles:
            place = data.find(needle) if len(needle) >= SHORT_BYTES else -1
            while place >= 0:
                taken[place : place + len(needle)] = True
                place = data.find(needle, place + len(needle))
        edges = np.flatnonzero(np.diff(np.concatenate([[True], taken, [True]]).astype("i1")))
        yield from (Span(file.path, int(begin), int(end)) for begin, end in edges.reshape(-1, 2))


def _bytes(spans: list[Span]) -> int:
    return sum(span.size_bytes for span in spans)


def _flip_and_look(spans: list[Span], draws: random.Random, look: Any, folder: Path) -> dict[str, Any]:
    place, bit = draws.randrange(_bytes(spans)), draws.randrange(8)
    for span in spans:
        if place < span.size_bytes:
            break
        place -= span.size_bytes
    _flip(span.path, span.begin + place, bit)
    try:
        answer = forks.ask(look, 60)
    finally:
        _flip(span.path, span.begin + place, bit)
    trial: dict[str, Any] = {"file": str(span.path.relative_to(folder)), "byte": span.begin + place, "bit": bit}
    if answer.signal is not None:
        return trial | {"outcome": "crashes", "signal": answer.signal}
    if answer.error is not None:
        return trial | {"outcome": "raises", "error": answer.error}
    return trial | {"outcome": "harmless" if answer.value == "nothing" else "silent", "differs": answer.value}


def _flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ (1 << bit)]))


def _counts(trials: list[dict[str, Any]]) -> dict[str, Any]:
    outcomes = Counter(trial["outcome"] for trial in trials)
    errors = Counter(trial["error"].partition(":")[0] for trial in trials if "error" in trial)
    return {name: outcomes[name] for name in ("silent", "raises", "crashes", "harmless")} | {"errors": dict(errors)}
