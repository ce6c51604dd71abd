"""Data by its content: which data a run was measured on, and how another person opens the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from relume.datasets import DataSplit, FolderImages, IdxImages, ToTensor, load
from relume.errors import ConfigurationError, DataError, RelumeError, UnknownNameError, closest
from relume.share.documents import DataSet, Preprocessing
from relume.share.gather import Source
from relume.share.rows import base_of, fingerprint, have_same_rows, labels, labels_fingerprint, length
from relume.share.transforms import known_transform

__all__ = ["Given", "fingerprint", "given_data", "open_data"]

_MOST_INDICES = 200_000
_NAMED: dict[str, dict[str, Any]] = {
    "fashion-mnist": {"source": "https://github.com/zalandoresearch/fashion-mnist", "licence": "MIT"},
    "mnist": {"source": "http://yann.lecun.com/exdb/mnist/", "licence": "CC-BY-SA-3.0"},
    "cifar10": {"source": "https://www.cs.toronto.edu/~kriz/cifar.html", "licence": ""},
}
_OF_TORCHVISION = {"FashionMNIST": "fashion-mnist", "MNIST": "mnist", "CIFAR10": "cifar10"}


@dataclass(frozen=True)
class Given:
    """Data that a model is measured on, opened here.

    Attributes:
        facts: what the bundle says of it.
        dataset: of (input, target), or what else a loader collates to a batch.
        collate: makes a batch of a list of samples.
        prepare: how its images become inputs, where that is known.
    """

    facts: DataSet
    dataset: Any
    collate: Callable[[list[Any]], Any] = default_collate
    prepare: ToTensor | None = field(default=None)


def given_data(source: Source, data: Any, *, role: str = "test") -> Given | None:
    """The data to measure on, opened: what ``data`` is, or what the run's configuration names; None where it names none.

    Args:
        data: None, a name of `relume.datasets`, a folder of images, a DataSplit, a DataLoader, a data set of
            (input, target), or a tuple of tensors (inputs, targets).

    Raises:
        DataError: it is not here, or cannot be used.
        ConfigurationError: it is none of these.
    """
    if data is None:
        return _of_config(source)
    if isinstance(data, (str, os.PathLike)):
        return _of_place(os.fspath(data), source, role)
    if isinstance(data, DataSplit):
        return _described(data.test, role, data.prepare, part="test")
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, torch.utils.data.IterableDataset):
            raise DataError(_ONLY_ITERATED)
        found = _described(data.dataset, role)
        return Given(found.facts, found.dataset, data.collate_fn or default_collate, found.prepare)
    if isinstance(data, (tuple, list)) and data and all(isinstance(one, torch.Tensor) for one in data):
        if len({len(one) if one.dim() else -1 for one in data}) != 1:
            shapes = ", ".join(str(tuple(one.shape)) for one in data)
            raise DataError(f"data= has tensors of the shapes {shapes}: all have one row a sample.")
        return _described(TensorDataset(*data), role)
    if callable(getattr(data, "__getitem__", None)) and callable(getattr(data, "__len__", None)):
        return _described(data, role)
    raise ConfigurationError(
        f"data={data!r:.80} is a {type(data).__name__}: give a name such as 'fashion-mnist', a folder of images, a data set of "
        "(input, target), a DataLoader, or a tuple of tensors (inputs, targets)."
    )


_ONLY_ITERATED = (
    "data= is a loader over data that can only be iterated, which cannot be named by its content: give a data set with "
    "len() and [index], or a tuple of tensors."
)


def named_data(source: Source) -> DataSet | None:
    """What the run's configuration says of its data, without opening it."""
    name = source.config.get("dataset")
    if not isinstance(name, str) or not name:
        return None
    if name in _NAMED:
        return _facts_of_named(name, "test", "test")
    return DataSet(
        role="val", kind="folder", name=source.portable.text(name), split="held out", options=_options(source)
    )


def _of_config(source: Source) -> Given | None:
    name = source.config.get("dataset")
    if not isinstance(name, str) or not name:
        return None
    fields = source.config.get("input")
    expected = None if fields is None else ToTensor.of_config(fields)
    root = _argument(source, "--data")
    if name in _NAMED:
        place = None if root is None else source.directory / root
        return _described(
            load(name, place, quiet=True, expected=expected).test, "test", expected, name=name, part="test"
        )
    folder = source.directory / Path(name).expanduser()
    if not folder.is_dir():
        raise DataError(f"the data of the run, {folder}, is not here any more: say where it is with data= (--data).")
    return _of_folder(folder, source, expected, "val")


def _of_place(place: str, source: Source, role: str) -> Given:
    fields = source.config.get("input")
    expected = None if fields is None else ToTensor.of_config(fields)
    if place in _NAMED:
        return _described(load(place, quiet=True, expected=expected).test, role, expected, name=place, part="test")
    if Path(place).is_file():
        return _described(_tensors_in(Path(place)), role)
    if Path(place).is_dir() and (name := source.config.get("dataset")) in _NAMED:
        return _described(load(name, place, quiet=True, expected=expected).test, role, expected, name=name, part="test")
    if not Path(place).exists():
        raise UnknownNameError(f"there is no dataset, no folder and no file {place!r:.200}: {closest(place, _NAMED)}")
    return _of_folder(Path(place), source, expected, role)


def _of_folder(folder: Path, source: Source, expected: ToTensor | None, role: str) -> Given:
    options = _options(source)
    split = load(folder, quiet=True, expected=expected, **options)
    if (classes := source.config.get("classes")) and list(classes) != split.classes:
        raise DataError(
            f"{folder} has the classes {split.classes!r:.100}, and the run those of {list(classes)!r:.100}."
        )
    facts = DataSet(
        role=role,
        kind="folder",
        name=source.portable.text(str(folder.absolute())),
        split="held out",
        options=options,
        classes=split.classes,
        how_to_get="a folder with a folder of images for each class: --data FOLDER",
    )
    return _with_fingerprint(Given(facts, split.test, prepare=split.prepare))


def _options(source: Source) -> dict[str, Any]:
    """How a folder was divided: as the run's configuration, or its command line, says."""
    found: dict[str, Any] = {}
    for key, kind in (("val_share", float), ("split_seed", int)):
        value = source.config.get(key, _argument(source, f"--{key.replace('_', '-')}"))
        try:
            if value is not None and not isinstance(value, bool):
                found[key] = kind(value)
        except (TypeError, ValueError):
            continue
    return found


def _argument(source: Source, option: str) -> str | None:
    """What an option of ``relume train`` had."""
    arguments = source.arguments
    if not arguments or arguments[0] != "train":
        return None
    for place, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1]
    return None


def _described(dataset: Any, role: str, prepare: ToTensor | None = None, *, name: str = "", part: str = "") -> Given:
    base, indices = base_of(dataset)
    name = name or _name_of(base)
    prepare = _with_channels(prepare or known_transform(dataset), base)
    classes = [str(one) for one in getattr(base, "classes", ())]
    if name:
        facts = _facts_of_named(name, role, part or _part_of(base))
        options: dict[str, Any] = {}
        if indices is not None and len(indices) <= _MOST_INDICES:
            options = {"indices": indices}
        elif indices is not None:
            facts = facts.model_copy(update={"kind": "other", "how_to_get": "of its author"})
        facts = facts.model_copy(update={"options": options, "classes": classes})
    elif type(base) is TensorDataset:
        facts = DataSet(
            role=role, kind="tensors", how_to_get="a file with the tensors 'input' and 'target': --data FILE"
        )
    else:
        kind = type(base).__qualname__
        facts = DataSet(role=role, kind="other", name=kind, classes=classes, how_to_get=f"of its author: a {kind}")
    return _with_fingerprint(Given(facts, dataset, prepare=prepare))


def _with_channels(prepare: ToTensor | None, base: Any) -> ToTensor | None:
    """Grey data says that its inputs are grey: a picture from elsewhere may be RGB."""
    shape = getattr(getattr(base, "data", None), "shape", ())
    if prepare is None or prepare.channels is not None or len(shape) != 3:
        return prepare
    return replace(prepare, channels=1)


def _with_fingerprint(given: Given) -> Given:
    found, covers = fingerprint(given.dataset)
    count = length(given.dataset)
    if not count:
        raise DataError("the data to measure on has no samples.")
    own = labels(given.dataset)
    update = {"fingerprint": found, "covers": covers, "samples": count}
    update |= {"labels_fingerprint": "" if own is None else labels_fingerprint(own)}
    return Given(given.facts.model_copy(update=update), given.dataset, given.collate, given.prepare)


def _facts_of_named(name: str, role: str, part: str) -> DataSet:
    how = f"relume finds or downloads {name} by its name; --data FOLDER says where its files are"
    return DataSet(role=role, kind="named", name=name, split=part, how_to_get=how, **_NAMED[name])


def _name_of(base: Any) -> str:
    """Which of the named sets it is, by torchvision's class or relume's own."""
    if type(base).__module__.startswith("torchvision.datasets"):
        return _OF_TORCHVISION.get(type(base).__name__, "")
    if type(base) is IdxImages:
        from relume.datasets.fashion import CLASSES

        return "fashion-mnist" if tuple(base.classes) == tuple(CLASSES) else ""
    return ""


def _part_of(base: Any) -> str:
    train = getattr(base, "train", None)
    if train is None:  # relume's own reader does not know: the parts have different lengths
        train = len(base) in (60_000, 5_000)
    return "train" if train else "test"


# ----------------------------------------------------------------------------------------------------- the other side


def open_data(facts: DataSet, preprocessing: Preprocessing, path: str | os.PathLike[str] | None = None) -> Dataset[Any]:
    """The data that a bundle speaks of, with its inputs as the model takes them.

    Args:
        path: where it is: for a named set the folder of its files, for a folder of images that folder, for tensors a file
            that has them as ``input`` and ``target``.

    Its content is not compared with ``facts.fingerprint`` here: `fingerprint` tells it.

    Raises:
        DataError: it is not here, or nothing says how it is opened.
    """
    try:
        found: Dataset[Any] = _opened(facts, preprocessing, None if path is None else Path(path))
    except (ConfigurationError, RelumeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"the data {facts.name or facts.kind} cannot be opened: {error}") from error
    indices = facts.options.get("indices")
    if indices is None:
        return found
    count = length(found)
    if not isinstance(indices, list) or not all(type(one) is int and 0 <= one < count for one in indices):
        raise DataError(f"the bundle names samples of {facts.name} that are none of its {count:,}.")
    chosen: Dataset[Any] = Subset(found, indices)
    return chosen


def _opened(facts: DataSet, preprocessing: Preprocessing, path: Path | None) -> Any:
    if facts.kind in ("named", "folder"):
        if preprocessing.kind != "image":
            raise DataError(
                f"how images of {facts.name} became inputs is not said by the bundle: its author used a transform of his own. "
                "Measure from Python: give the data set itself."
            )
        expected = ToTensor.of_config(preprocessing.settings)
        if facts.kind == "named":
            if facts.name not in _NAMED:
                raise DataError(f"{facts.name!r:.80} is none of the data sets that relume knows: {', '.join(_NAMED)}.")
            split = load(facts.name, path, quiet=True, expected=expected)
            return split.train if facts.split == "train" else split.test
        return _opened_folder(facts, expected, path)
    if facts.kind == "tensors" and path is not None:
        return _tensors_in(path)
    if facts.kind == "tensors":
        raise DataError("the data is a file with the tensors 'input' and 'target': say where it is (--data FILE).")
    raise DataError(
        f"the data is {facts.name or 'of a kind of its author'}, which nothing but its author's code opens. "
        f"{facts.how_to_get}".strip()
    )


def _opened_folder(facts: DataSet, expected: ToTensor, path: Path | None) -> FolderImages:
    if path is None:
        raise DataError(f"the data is the folder of images {facts.name!r:.80}: say where it is (--data FOLDER).")
    options = {key: facts.options[key] for key in ("val_share", "split_seed") if key in facts.options}
    split = load(path, quiet=True, expected=expected, **options)
    if facts.classes and split.classes != facts.classes:
        raise DataError(
            f"{path} has the classes {split.classes!r:.100}, and the bundle those of {facts.classes!r:.100}."
        )
    found = split.train if facts.split == "train" else split.test
    assert isinstance(found, FolderImages)
    return found


_INPUTS, _TARGETS = ("input", "inputs", "x", "X"), ("target", "targets", "label", "labels", "y")


def _tensors_in(path: Path) -> TensorDataset:
    from relume.models import read_state

    if not path.is_file():
        raise DataError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: the data is a file of tensors.")
    state: Mapping[str, Any] = read_state(path)
    names = [next((name for name in wanted if name in state), "") for wanted in (_INPUTS, _TARGETS)]
    if not all(names):
        held = ", ".join(list(state)[:8]) or "nothing"
        raise DataError(f"{path} holds {held}: the data has the tensors 'input' and 'target'.")
    if not have_same_rows(state[names[0]], state[names[1]]):
        shapes = " and targets of ".join(str(tuple(state[name].shape)) for name in names)
        raise DataError(f"{path} has inputs of the shape {shapes}: both have one row a sample.")
    return TensorDataset(state[names[0]], state[names[1]])
