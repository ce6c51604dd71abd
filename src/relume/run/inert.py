"""Files of ``torch.save`` read without running anything that is in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relume.checkpoint.tensors import array_dtype
from relume.errors import ClassicFileError


def load_inert(path: Path) -> Any:
    """``torch.load`` with ``weights_only=True``, onto the CPU, mapped where the file's format allows it.

    numpy scalars come as Python numbers and an ``argparse.Namespace`` as a dict, built by relume and not by their classes.

    Raises:
        ClassicFileError: there is no such file, it is damaged, or reading it would need pickle; names what in it does.
    """
    if path.is_dir():
        raise ClassicFileError(f"{path} is a folder, not a file that torch.save wrote.")
    try:
        with torch.serialization.safe_globals(_STANDINS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FileNotFoundError:
        raise ClassicFileError(f"there is no file {path}.") from None
    except OSError as error:
        raise ClassicFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # what a damaged pickle makes its reader raise has no end
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> ClassicFileError:
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error) or type(error).__name__
    needs = _unsafe(path) or re.findall(r"Unsupported global: GLOBAL (\S+) was not", text)
    if "TorchScript" in text:
        return ClassicFileError(
            f"{path} is a TorchScript archive: it holds code. Where it was made, write its weights: "
            "torch.save(model.state_dict(), path)."
        )
    if not needs:
        first = f"{type(error).__name__}: {text.strip().splitlines()[0].partition('. ')[0]}"
        return ClassicFileError(f"{path} is damaged, or torch.save did not write it in its usual form: {first:.200}")
    return ClassicFileError(
        f"{path} needs pickle, which can run any code, for: {', '.join(needs):.1000}. relume does not run it. If you trust "
        "the file, write it anew where it was made, with tensors and plain Python only: "
        "old = torch.load(path, weights_only=False), then torch.save({'epoch': old['epoch'], 'model_state_dict': ..., "
        "'optimizer_state_dict': ..., 'loss': float(...)}, path); or, where old is the model itself, "
        "torch.save(old.state_dict(), path)."
    )


def _unsafe(path: Path) -> list[str]:
    """The classes and functions that pickle would look up; it is taken apart for that, not run."""
    try:
        with torch.serialization.safe_globals(_STANDINS):
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # an old format, or damaged; the first error says enough
        return []


class _Dtype:
    """Stands for ``numpy.dtype``, whose own ``__setstate__`` changes dtypes that everybody shares."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = str(name)
        self.order = "|"

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) > 1:
            self.order = str(state[1])


class _Scalar:
    """Stands for ``numpy.core.multiarray.scalar``; gives a Python number."""

    def __new__(cls, dtype: object = None, data: object = b"") -> Any:
        spelled = f"{dtype.order}{dtype.name}" if isinstance(dtype, _Dtype) else getattr(dtype, "str", "")
        try:
            kind = array_dtype(spelled)
            if not isinstance(data, bytes) or len(data) != kind.itemsize:
                raise ValueError(f"{len(data) if isinstance(data, bytes) else 'no'} bytes")
        except ValueError as error:
            raise pickle.UnpicklingError(f"a numpy scalar of dtype {spelled!r:.60}: {error}") from None
        return np.frombuffer(data, kind)[0].item()


class _Namespace(dict[str, Any]):
    """Stands for ``argparse.Namespace``."""

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.update({str(key): value for key, value in state.items()})


def _standin(base: type, module: str, name: str) -> Any:
    """A class that the reader finds under another's name: all versions of torch look at these two attributes."""
    return type(name, (base,), {"__module__": module})


_STANDINS = [
    _standin(_Scalar, "numpy.core.multiarray", "scalar"),
    _standin(_Scalar, "numpy._core.multiarray", "scalar"),
    _standin(_Dtype, "numpy", "dtype"),
    _standin(_Namespace, "argparse", "Namespace"),
]
