"""Classes for images in files: from a run's checkpoint or a model file that knows its classes."""

from __future__ import annotations

import glob
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relume.datasets import ToTensor, images_below, read_image
from relume.errors import ConfigurationError, DataError
from relume.models.bundled import is_bundle, load_bundle, open_bundle
from relume.models.contents import CLASSES, INPUT
from relume.text import counted
from relume.train.evaluation import evaluation_mode
from relume.train.precision import pick_device

PathLike = str | os.PathLike[str]

_REMEDY = (
    "relume train keeps them with its runs. A script of your own keeps them in the config of its Run or Trainer.fit: "
    "config={'classes': ['cat', 'dog'], 'input': relume.datasets.ToTensor(224, 3).as_config()}."
)


@dataclass(frozen=True)
class Prediction:
    """What a model takes an image for.

    Attributes:
        image: its path, as it was found.
        classes: pairs (class, probability), the most probable first; empty where there is a problem.
        problem: why there is no prediction.
    """

    image: str
    classes: tuple[tuple[str, float], ...] = ()
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        if self.problem:
            return {"image": self.image, "error": self.problem}
        return {"image": self.image, "classes": [{"class": name, "probability": p} for name, p in self.classes]}


@dataclass(frozen=True)
class ImageClassifier:
    """A model, the names of its classes, and how an image becomes its input.

    Attributes:
        source: where it is from, in words.
    """

    model: nn.Module
    classes: tuple[str, ...]
    prepare: ToTensor
    source: str = ""

    @classmethod
    def load(
        cls,
        source: PathLike,
        root: str | Path = "runs",
        *,
        monitor: str | None = None,
        device: str | torch.device | None = None,
        trust: bool = False,
    ) -> ImageClassifier:
        """The model of a run or a file, with what is kept beside it.

        Args:
            source: ``RUN`` (its newest checkpoint), ``RUN@best``, ``RUN@last``, ``RUN@12``, a checkpoint's path, a bundle
                (``fashion.relume``, or the folder that it was unpacked to), or a ``.safetensors`` file that has a recipe,
                classes and input in its metadata, as ``relume export`` writes it.
            root: the folder that holds the runs.
            monitor: the metric that ``RUN@best`` looks at; by default the loss of the validation.
            device: where the model computes; by default on the accelerator.
            trust: run the code in a bundle, see `relume.load_model`.

        Raises:
            UnknownNameError, CheckpointError, ModelFileError: there is no such run, checkpoint or file, or it is damaged.
            RecipeError: how the model is built is not known.
            ConfigurationError: it knows no names of classes, or not what its inputs are.
        """
        from relume.models import load_model
        from relume.models.files import open_model_file

        chosen = pick_device(device)
        if is_bundle(source):
            return _of_bundle(cls, source, chosen, trust)
        if trust:
            raise ConfigurationError(f"trust=True is for bundles (.relume), which hold code: {source} is none.")
        place = _place_of(source, root, monitor)
        metadata = open_model_file(place).metadata
        classes, prepare = _known_of(metadata, str(source))
        epoch = f", after epoch {metadata['epoch']}" if metadata.get("epoch") else ""
        return cls(load_model(place, device=chosen), classes, prepare, f"{source}{epoch}")

    def predict(self, images: Iterable[PathLike], *, batch_size: int = 32, top: int = 5) -> Iterator[Prediction]:
        """One prediction an image, in their order; one that cannot be read has a problem, and the others go on.

        Args:
            images: files.
            batch_size: how many images are computed at once.
            top: how many classes are given for each, at most.

        Raises:
            ConfigurationError: a number below 1, or a model whose outputs are no scores of its classes.
        """
        for name, value in {"batch_size": batch_size, "top": top}.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}={value!r}: it is a whole number of at least 1.")
        paths = iter(images)
        size = batch_size if self.prepare.size is not None else 1  # images of different sizes make no batch
        while group := list(itertools.islice(paths, size)):
            yield from self._predict_batch([os.fspath(path) for path in group], top)

    def _predict_batch(self, paths: list[str], top: int) -> list[Prediction]:
        read = [self._read(path) for path in paths]
        inputs = [one for one in read if isinstance(one, torch.Tensor)]
        rows = iter(self._probabilities(torch.stack(inputs)).tolist() if inputs else ())
        return [
            Prediction(path, problem=one) if isinstance(one, str) else self._named(path, next(rows), top)
            for path, one in zip(paths, read, strict=True)
        ]

    def _read(self, path: str) -> torch.Tensor | str:
        """The model's input, or why there is none."""
        if not os.path.exists(path):  # noqa: PTH110 - a path from a glob is text
            return f"there is no file {path}."
        try:
            return self.prepare(read_image(path))
        except DataError as error:
            return str(error)

    def _probabilities(self, inputs: torch.Tensor) -> torch.Tensor:
        parameter = next(itertools.chain(self.model.parameters(), self.model.buffers()), None)
        if parameter is not None:
            inputs = inputs.to(parameter.device, parameter.dtype if parameter.is_floating_point() else None)
        with evaluation_mode(self.model), torch.no_grad():
            scores = self.model(inputs)
        count = len(self.classes)
        if not isinstance(scores, torch.Tensor) or scores.shape != (len(inputs), count):
            given = f"of shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ConfigurationError(
                f"{self.source}: there are {count} classes, and the output for {counted(len(inputs), 'image')} is {given}, "
                f"not ({len(inputs)}, {count}): such a model is no classifier of images."
            )
        return scores.double().softmax(1).cpu() if scores.device.type != "mps" else scores.float().softmax(1).cpu()

    def _named(self, path: str, probabilities: Sequence[float], top: int) -> Prediction:
        if not all(value == value for value in probabilities):
            return Prediction(
                path, problem=f"{path}: the model's scores are not finite. Were its weights trained well?"
            )
        order = sorted(range(len(self.classes)), key=lambda label: (-probabilities[label], label))[:top]
        return Prediction(path, tuple((self.classes[label], probabilities[label]) for label in order))


def predict_images(
    source: PathLike | ImageClassifier,
    images: PathLike | Iterable[PathLike],
    *,
    top: int = 5,
    batch_size: int = 32,
    root: str | Path = "runs",
    device: str | torch.device | None = None,
) -> list[Prediction]:
    """Tell what images show.

    Args:
        source: ``"RUN@best"`` and so on, see `ImageClassifier.load`; or such a classifier.
        images: files, folders (all images in them) and patterns (``"photos/*.jpg"``), or one of these.
        top: how many classes are given for each image.
        batch_size: how many images are computed at once.
        root: the folder that holds the runs.
        device: where the model computes.

    Returns:
        One prediction an image, in order; one that cannot be read has a ``problem``.

    Raises:
        DataError: there are no images.
        RelumeError: the model cannot be had, see `ImageClassifier.load`.

    Example:
        >>> from PIL import Image
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
        >>> Image.new("RGB", (30, 20)).save(tmp_path / "photo.png")
        >>> classifier = ImageClassifier(model, ("cat", "dog"), ToTensor(8, 3))
        >>> [found] = predict_images(classifier, tmp_path)
        >>> len(found.classes), round(sum(p for _, p in found.classes), 6)
        (2, 1.0)
    """
    paths = find_images([images] if isinstance(images, (str, os.PathLike)) else images)
    classifier = source if isinstance(source, ImageClassifier) else ImageClassifier.load(source, root, device=device)
    return list(classifier.predict(paths, batch_size=batch_size, top=top))


def find_images(given: Iterable[PathLike]) -> list[str]:
    """The files that files, folders and patterns mean, each once, in their order. A file need not be there.

    Raises:
        DataError: there are none: nothing was given, a folder has no images in it, or a pattern matches nothing.
    """
    found: dict[str, None] = {}
    for one in given:
        name = os.path.expanduser(os.fspath(one))  # noqa: PTH111 - a pattern is no path
        if Path(name).is_dir():
            inside = images_below(name)
            if not inside:
                raise DataError(f"the folder {name} has no images in it (.jpg, .png, .webp, .bmp, .tif, …).")
        elif not Path(name).exists() and glob.has_magic(name):
            inside = [path for path in sorted(glob.glob(name, recursive=True)) if Path(path).is_file()]  # noqa: PTH207
            if not inside:
                raise DataError(f"no file matches {name!r} in {Path.cwd()}.")
        else:
            inside = [name]
        found |= dict.fromkeys(inside)
    if not found:
        raise DataError("no images were given: name files, folders or patterns such as 'photos/*.jpg'.")
    return list(found)


def _of_bundle(kind: type[ImageClassifier], source: PathLike, device: torch.device, trust: bool) -> ImageClassifier:
    file = open_bundle(source)  # which compares every byte, once for all that follows
    for key, what in {INPUT: "its inputs are no pictures", CLASSES: "its classes have no names"}.items():
        if key not in file.metadata:
            raise ConfigurationError(
                f"{source}: {what}, or its author did not say so when it was packed (preprocessor_config.json). Call the "
                f"model itself: relume.load_model({os.fspath(source)!r})."
            )
    classes, prepare = _known_of(file.metadata, str(source))
    return kind(load_bundle(file, trust=trust, device=device), classes, prepare, str(source))


def _place_of(source: PathLike, root: str | Path, monitor: str | None) -> Path:
    """A file, or the manifest of the checkpoint that is meant."""
    from relume.models.files import open_model_file
    from relume.saved import find_checkpoint

    name = os.fspath(source)
    if Path(name).is_file() or Path(name).suffix in (".safetensors", ".pt", ".pth", ".pt2"):
        return open_model_file(name).path
    run, at, which = name.rpartition("@")
    name = run if at and run and which == "last" else name
    return find_checkpoint(name, root, monitor=monitor)[1].path


def _known_of(metadata: Mapping[str, str], source: str) -> tuple[tuple[str, ...], ToTensor]:
    """The names of the classes, and how images are prepared, as they are kept beside weights."""
    classes, fields = (_parsed(metadata.get(key)) for key in (CLASSES, INPUT))
    if classes is None:
        raise ConfigurationError(f"{source} knows no names of classes. {_REMEDY}")
    if not isinstance(classes, list) or len(classes) < 2 or not all(isinstance(name, str) for name in classes):
        raise ConfigurationError(f"{source}: its classes are {classes!r:.200}, no list of two or more names. {_REMEDY}")
    if fields is None:
        raise ConfigurationError(f"{source} knows its classes, and not how an image becomes its input. {_REMEDY}")
    return tuple(classes), ToTensor.of_config(fields)


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return text
