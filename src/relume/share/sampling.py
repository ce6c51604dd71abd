"""A small sample of the data in the bundle itself: who does not have the data can check something."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from relume.data.calls import inputs_and_target
from relume.datasets import ToTensor
from relume.errors import BundleError, DataError
from relume.models.tensorfile import tensorfile_parts
from relume.share.archive import Parts
from relume.share.bundle import Bundle
from relume.share.data import Given
from relume.share.documents import INPUT, SAMPLE_FOLDER, DataSet, Preprocessing
from relume.share.examples import opened, png
from relume.share.rows import fingerprint, have_same_rows, length, raw_image

LABELS = f"{SAMPLE_FOLDER}sample.safetensors"
ROLE = "sample"


class SamplePictures(Dataset[Any]):
    """Pictures of a bundle with their labels; a drop-in for the data set that they are from."""

    def __init__(self, contents: list[bytes], labels: torch.Tensor, prepare: ToTensor, classes: list[str]) -> None:
        self._contents = contents
        self.targets = labels
        self.prepare = prepare
        self.classes = classes

    def __len__(self) -> int:
        return len(self._contents)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.prepare(opened(self._contents[index])), int(self.targets[index])


def sample_of(given: Given, count: int) -> tuple[DataSet, Any, dict[str, Parts]]:
    """The first samples: what is said of them, as a data set, and their files.

    Pictures are kept as they are, without loss, where what turns them into inputs is known; inputs otherwise.
    """
    count = min(count, length(given.dataset))
    first = Subset(given.dataset, range(count))
    samples = [given.dataset[index] for index in range(count)]
    args, kwargs, target = inputs_and_target(given.collate(samples))
    if kwargs or len(args) != 1 or not isinstance(args[0], torch.Tensor) or not isinstance(target, torch.Tensor):
        raise DataError(
            "a sample of the data is packed where a model takes one tensor and the target is one: leave sample= out."
        )
    facts = DataSet(role=ROLE, kind="tensors", name=SAMPLE_FOLDER, samples=count, classes=given.facts.classes)
    images = [raw_image(given.dataset, index) for index in range(count)]
    files: dict[str, Parts] = {}
    tensors = {"target": target.contiguous()}
    if given.prepare is not None and all(image is not None for image in images) and _is_classes(target):
        pictures = {f"{SAMPLE_FOLDER}{number:05}.png": png(image) for number, image in enumerate(images)}
        own: Any = SamplePictures(list(pictures.values()), target, given.prepare, given.facts.classes)
        if torch.equal(default_collate([own[index][0] for index in range(count)]), args[0]):
            files = {path: _held(content) for path, content in pictures.items()}
            facts = facts.model_copy(update={"kind": "folder"})
            first = own
    if not files:
        tensors["input"] = args[0].contiguous()
        first = TensorDataset(args[0], target)  # type: ignore[assignment]
    held = list(tensorfile_parts(tensors))
    files[LABELS] = lambda: held
    found, covers = fingerprint(first)
    how = "it is in the bundle"
    return facts.model_copy(update={"fingerprint": found, "covers": covers, "how_to_get": how}), first, files


def open_sample(bundle: Bundle) -> Dataset[Any]:
    """The sample in a bundle, with inputs as the model takes them.

    Raises:
        BundleError: it has none, or it is not understood.
    """
    state = bundle.tensors(LABELS).state
    target = state.get("target")
    if not isinstance(target, torch.Tensor) or not target.dim():
        raise BundleError(f"{bundle.path}: {LABELS} has no targets.")
    if isinstance(inputs := state.get("input"), torch.Tensor):
        if not have_same_rows(inputs, target):
            shapes = f"{tuple(inputs.shape)} and targets of {tuple(target.shape)}"
            raise BundleError(f"{bundle.path}: {LABELS} has inputs of the shape {shapes}: both have one row a sample.")
        return TensorDataset(inputs.clone(), target.clone())
    paths = sorted(path for path in bundle.members(SAMPLE_FOLDER) if path.endswith(".png"))
    if len(paths) != len(target):
        raise BundleError(f"{bundle.path}: {SAMPLE_FOLDER} has {len(paths)} pictures and {len(target)} targets.")
    if not _is_classes(target):
        raise BundleError(
            f"{bundle.path}: {LABELS} has no class for each picture, but {target.dtype} {tuple(target.shape)}."
        )
    preprocessing = bundle.document(INPUT, Preprocessing)
    if preprocessing.kind != "image":
        raise BundleError(f"{bundle.path}: it has pictures, and {INPUT} does not say how they become inputs.")
    prepare = ToTensor.of_config(preprocessing.settings)
    return SamplePictures([bundle.read(path) for path in paths], target.clone(), prepare, preprocessing.classes)


def _is_classes(target: torch.Tensor) -> bool:
    return target.dim() == 1 and not target.is_floating_point()


def _held(content: bytes) -> Parts:
    return lambda: [content]
