"""Every exception that a user of relume can meet.

RelumeError
├── ConfigurationError     what was asked for makes no sense: names the value and what is allowed
│   ├── RunNameError       a run name that cannot be a folder name
│   ├── OptimizerError     the optimizer and the model do not belong together
│   ├── UnknownNameError   no such model, dataset, run or metric: lists the closest names
│   │   └── NoMatchError       a pattern that matches no parameter or module: lists the closest names
│   ├── ExpressionError    a condition on runs that cannot be read: points at the place
│   └── PreflightError     the model, its frozen parts and the optimizer contradict each other: says where and the remedy
├── MissingPackageError    an optional package is needed: names the extra to install
├── DataError              the data cannot be used
│   ├── EmptyLoaderError   a loader that yields no batch
│   ├── BatchError         a batch whose form is not understood
│   ├── TargetError        a target outside the range of the model's outputs
│   ├── InMemoryError      in_memory=True was asked for and cannot be had
│   └── FeatureCacheError  cache_features=True was asked for and cannot be had: says why
├── DeterminismError       deterministic=True, and an operation has no deterministic form: names it and the remedy
├── LossError              the training step gave no usable loss
│   └── NonFiniteLossError the loss is NaN or infinite: names step, batch and the last finite value
└── StorageError           files
    ├── RootError          the root of the runs cannot be used
    ├── RunError           a run's files are missing or not understood
    ├── DownloadError      a file from the network did not arrive: says where to put it by hand
    ├── ExchangeError      a bundle was not pushed or pulled: says what the other side answered, and what to do
    ├── ModelFileError     a file of weights or of a model is missing, damaged or not understood
    │   ├── ClassicFileError   a file of plain torch without what was looked for
    │   ├── UnsafeFileError    it would run code, or is not what it pretends to be: names what; nothing was run
    │   ├── RecipeError        how to build the model is not known, or not allowed
    │   └── BundleError        a bundle is damaged, was changed, or lacks what is needed: names the file in it
    └── CheckpointError    a checkpoint cannot be written or read
        ├── ManifestError          a manifest that is damaged or not understood
        │   └── FutureFormatError  it was written by a newer relume
        ├── PackError              a pack file is missing, cut short or not a pack
        │   └── CorruptionError    bytes in a pack are not the bytes that were saved
        ├── UnknownCheckpointError no such checkpoint: lists those there are
        ├── UnstorableError        an object that no checkpoint can hold: names the path to it
        ├── MismatchError          tensors that do not fit the module: names them all
        ├── ConstantChangedError   a tensor that was said to be constant has changed: names it
        ├── StoreLockedError       another process holds the store
        └── StoreWriteError        the store cannot be written: read-only, full, failing disk
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable


class RelumeError(Exception):
    """Base of all errors that relume raises on purpose.

    Names out of files may stand in its text: nothing in it moves a terminal's cursor or turns the direction of writing.
    """

    def __str__(self) -> str:
        text = super().__str__()
        if text.replace("\n", "").isprintable():
            return text
        return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class ConfigurationError(RelumeError, ValueError):
    """What was asked for makes no sense."""


class RunNameError(ConfigurationError):
    """A run name that cannot be the name of a folder."""


class OptimizerError(ConfigurationError):
    """The optimizer and the model do not belong together."""


class UnknownNameError(ConfigurationError):
    """No such model, dataset, run or metric."""


class NoMatchError(UnknownNameError):
    """A pattern matches no parameter and no module."""


class PreflightError(ConfigurationError):
    """The model, its frozen parts and the optimizer contradict each other."""


class ExpressionError(ConfigurationError):
    """A condition on runs cannot be read."""


class MissingPackageError(RelumeError, ImportError):
    """An optional package is needed for this."""


class DataError(RelumeError, ValueError):
    """The data cannot be used."""


class EmptyLoaderError(DataError):
    """A loader that yields no batch."""


class BatchError(DataError):
    """A batch whose form is not understood."""


class TargetError(DataError):
    """A target outside the range of the model's outputs."""


class InMemoryError(DataError):
    """``in_memory=True`` was asked for and cannot be had."""


class FeatureCacheError(DataError):
    """``cache_features=True`` was asked for, or features by hand, and they cannot be had."""


class DeterminismError(RelumeError, RuntimeError):
    """Deterministic algorithms were asked for, and an operation has none."""


class LossError(RelumeError, ValueError):
    """The training step gave no usable loss."""


class NonFiniteLossError(LossError, ArithmeticError):
    """The loss is NaN or infinite."""


class StorageError(RelumeError, OSError):
    """Files cannot be read or written."""


class RootError(StorageError):
    """The folder that holds the runs cannot be used."""


class RunError(StorageError):
    """A run's files are missing or not understood."""


class DownloadError(StorageError):
    """A file from the network did not arrive."""


class ExchangeError(StorageError):
    """A bundle could not be pushed to, or pulled from, where it was to go."""


class ModelFileError(StorageError):
    """A file of weights or of a model is missing, damaged or not understood."""


class ClassicFileError(ModelFileError):
    """A file of plain torch does not hold what was looked for."""


class UnsafeFileError(ModelFileError):
    """A file would run code, or is not what it pretends to be. Nothing of it was run."""


class RecipeError(ModelFileError):
    """How a model is built is not known, or is not allowed."""


class BundleError(ModelFileError):
    """A bundle is damaged, was changed, or lacks what is needed."""


class CheckpointError(StorageError):
    """A checkpoint cannot be written or read."""


class ManifestError(CheckpointError):
    """A manifest is damaged or not understood."""


class FutureFormatError(ManifestError):
    """A manifest was written by a newer relume."""


class PackError(CheckpointError):
    """A pack file is missing, cut short or not a pack."""


class CorruptionError(PackError):
    """Bytes in a pack are not the bytes that were saved."""


class UnknownCheckpointError(CheckpointError):
    """No such checkpoint."""


class UnstorableError(CheckpointError, TypeError):
    """An object that no checkpoint can hold."""


class MismatchError(CheckpointError, ValueError):
    """Tensors that do not fit the module they are loaded into."""


class ConstantChangedError(CheckpointError):
    """A tensor that was said to be constant has changed."""


class StoreLockedError(CheckpointError):
    """Another process holds the store's lock."""


class StoreWriteError(CheckpointError):
    """The store cannot be written: it is read-only, the disk is full or fails."""


class RelumeWarning(UserWarning):
    """Something that does not stop the training but that its owner should know."""


def warn(text: str) -> None:
    """Warn of something with a `RelumeWarning` that points to the line of the user's which led there.

    Python numbers the frames between, and what calls what changes: so the first one outside of relume is looked for.
    """
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1  # type: ignore[assignment]
    warnings.warn(text, RelumeWarning, stacklevel=level)


_BETWEEN = ("relume", "contextlib", "threading", "torch")


def closest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Text for an error message: the known names closest to ``name``, or all when they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    if not names:
        return "there are none."
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"known: {shown}."
