"""Every exception that a user of relume can meet.

RelumeError
├── ConfigurationError     what was asked for makes no sense: names the value and what is allowed
│   ├── RunNameError       a run name that cannot be a folder name
│   ├── OptimizerError     the optimizer and the model do not belong together
│   └── UnknownNameError   no such model, dataset, run or metric: lists the closest names
├── MissingPackageError    an optional package is needed: names the extra to install
├── DataError              the data cannot be used
│   ├── EmptyLoaderError   a loader that yields no batch
│   ├── BatchError         a batch whose form is not understood
│   ├── TargetError        a target outside the range of the model's outputs
│   └── InMemoryError      in_memory=True was asked for and cannot be had
├── LossError              the training step gave no usable loss
│   └── NonFiniteLossError the loss is NaN or infinite: names step, batch and the last finite value
└── StorageError           files
    ├── RootError          the root of the runs cannot be used
    ├── RunError           a run's files are missing or not understood
    └── DownloadError      a file from the network did not arrive: says where to put it by hand
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RelumeError(Exception):
    """Base of all errors raised by relume on purpose."""


class ConfigurationError(RelumeError, ValueError):
    """What was asked for makes no sense."""


class RunNameError(ConfigurationError):
    """A run name that cannot be the name of a folder."""


class OptimizerError(ConfigurationError):
    """The optimizer and the model do not belong together."""


class UnknownNameError(ConfigurationError):
    """No such model, dataset, run or metric."""


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


class RelumeWarning(UserWarning):
    """Something that does not stop the training but that its owner should know."""


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
