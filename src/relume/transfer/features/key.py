"""Fingerprints: what a value consists of, code and settings included, the same in every process."""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import nn

from relume.checkpoint.hashing import hash_bytes
from relume.transfer.modes import StaysInEval

_MOST_FILES = 100_000
_MOST_DEPTH = 60
_IGNORED = frozenset({
    "training", "train", "_is_full_backward_hook", "_non_persistent_buffers_set", "call_super_init",
    "_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
})  # fmt: skip
"""What does not change the values that a module of constant parts computes."""


class NoFingerprint(Exception):  # noqa: N818 - a decision, not an error
    """What could not be told apart by its content: names the path to it."""


def fingerprint_of(*values: Any) -> str:
    """blake3 of what values consist of, in hexadecimal.

    Tensors and arrays count by their bytes, functions and classes of the user's by their code and what it refers to,
    those of packages by name and version, strings that are the path of a file by its size and time as well.

    Raises:
        NoFingerprint: there is something in it, such as an open file, whose content is not known.

    Example:
        >>> fingerprint_of([1, 2], "a") == fingerprint_of([1, 2], "a") != fingerprint_of([2, 1], "a")
        True
    """
    reader = _Reader()
    for number, value in enumerate(values):
        reader.read(value, f"[{number}]", 0)
    return reader.hasher.hexdigest(16)


class _Reader:
    def __init__(self) -> None:
        self.hasher = blake3(max_threads=1)
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no id is given twice

    def say(self, *parts: object) -> None:
        for part in parts:
            data = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
            self.hasher.update(len(data).to_bytes(8, "little"))
            self.hasher.update(data)

    def read(self, value: Any, path: str, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise NoFingerprint(f"{path} is nested too deeply")
        if _is_plain(value):
            self.say(type(value).__name__, value if isinstance(value, bytes) else repr(value))
        elif isinstance(value, str):
            self.say("str", value)
            self._file(value, path)
        elif isinstance(value, PurePath):
            self.say("path", value)
            self._file(str(value), path)
        elif isinstance(value, tuple):
            self._sequence(value, path, depth + 1)
        elif id(value) in self._seen:
            self.say("seen", self._seen[id(value)])
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            self._read_large(value, path, depth + 1)

    def _read_large(self, value: Any, path: str, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            self._tensor(value, path)
        elif isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                self.read(value.tolist(), path, depth)
            else:
                self.say("array", value.dtype, value.shape)
                self._bytes(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif isinstance(value, list):
            self._sequence(value, path, depth)
        elif isinstance(value, Mapping) and type(value).__module__ in ("builtins", "collections"):
            self.say(type(value).__name__, len(value))
            for key, item in value.items():
                self.read(key, path, depth)
                self.read(item, f"{path}[{key!r:.40}]", depth)
        elif isinstance(value, (set, frozenset)):
            self.say("set", sorted(fingerprint_of(item) for item in value))
        elif isinstance(value, functools.partial):
            self.say("partial")
            self.read([value.func, value.args, value.keywords], path, depth)
        elif isinstance(value, types.MethodType):
            self.say("method", value.__name__)
            self.read([value.__self__, value.__func__], path, depth)
        elif isinstance(value, types.FunctionType):
            self._function(value, path, depth)
        elif isinstance(value, type):
            self._class(value, path, depth)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType)):
            self.say("builtin", value.__module__, value.__qualname__)
        elif isinstance(
            value, (np.generic, torch.dtype, torch.device, torch.layout, torch.memory_format, range, slice)
        ):
            self.say(type(value).__name__, repr(value))
        elif isinstance(value, re.Pattern):
            self.say("pattern", value.pattern, value.flags)
        elif isinstance(value, torch.Generator):
            self.say("generator", value.get_state().numpy().tobytes())
        else:
            self._object(value, path, depth)

    def _tensor(self, value: torch.Tensor, path: str) -> None:
        if value.layout is not torch.strided or value.device.type == "meta":
            raise NoFingerprint(f"{path} is a tensor without plain content")
        self.say("tensor", value.dtype, tuple(value.shape))
        plain = value.detach().as_subclass(torch.Tensor)
        flat = plain.cpu().contiguous().reshape(-1).view(torch.uint8)
        if flat.numel():
            self._bytes(flat.numpy().data)

    def _bytes(self, data: memoryview) -> None:
        self.say(hash_bytes(data))

    def _sequence(self, value: list[Any] | tuple[Any, ...], path: str, depth: int) -> None:
        self.say(type(value).__name__, len(value))
        if len(value) > 1000 and all(type(item) in (int, float, bool) for item in value):
            self.say(repr(value))
            return
        for number, item in enumerate(value):
            self.read(item, f"{path}[{number}]", depth)
            if len(self._kept) > 100_000:  # of a long list of pairs, none is met again
                self._kept, self._seen = self._kept[:1000], dict(list(self._seen.items())[:1000])

    def _file(self, text: str, path: str) -> None:
        """A path counts with what is there: a file's size and time, and those of all files in a folder."""
        if not text or len(text) > 4096 or "\0" in text or "\n" in text:
            return
        try:
            status = Path(text).stat()
        except (OSError, ValueError):
            return
        if not Path(text).is_dir():
            self.say("file", status.st_size, status.st_mtime_ns)
            return
        count = 0
        for folder, folders, names in os.walk(text):
            folders.sort()
            for name in sorted(names):
                count += 1
                if count > _MOST_FILES:
                    raise NoFingerprint(f"{path} is a folder with more than {_MOST_FILES:,} files")
                inner = _status(Path(folder, name))
                self.say(name, inner.st_size, inner.st_mtime_ns)

    def _module(self, value: types.ModuleType) -> None:
        """A module of the user's own counts by its source and that of its package: what is called in it is not followed."""
        version = _library(value.__name__)
        self.say("module", value.__name__, version or "")
        if version is None:
            top = value.__name__.partition(".")[0]
            parts = [module for name, module in sys.modules.items() if name.partition(".")[0] == top]
            for file in sorted({str(getattr(part, "__file__", None)) for part in (value, *parts)}):
                with contextlib.suppress(OSError):
                    self.say(file, hash_bytes(Path(file).read_bytes()))

    def _function(self, value: types.FunctionType, path: str, depth: int) -> None:
        self.say("function", value.__module__, value.__qualname__)
        if (version := _library(value.__module__)) is not None:
            self.say(version)
        else:
            self._code(value.__code__, value.__globals__, path, depth)
        self.read([value.__defaults__, value.__kwdefaults__], f"{path} defaults", depth)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                continue
            if name != "__class__":
                self.read(content, f"{path}'s {name}", depth)

    def _code(self, code: types.CodeType, names: Mapping[str, Any], path: str, depth: int) -> None:
        self.say(code.co_code, code.co_names, code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant, names, path, depth)
            elif isinstance(constant, frozenset):
                self.say(sorted(map(repr, constant)))
            else:
                self.say(repr(constant))
                if isinstance(constant, str) and constant.strip("./"):  # "." and "/" are what one splits at
                    self._file(constant, path)
        for name in code.co_names:
            if name in names:
                self.read(names[name], f"{path}'s {name}", depth)

    def _class(self, value: type, path: str, depth: int) -> None:
        self.say("class", value.__module__, value.__qualname__)
        if (version := _library(value.__module__)) is not None:
            self.say(version)
            return
        self.read(list(value.__bases__), path, depth)
        for name, item in vars(value).items():
            inner = item.__func__ if isinstance(item, (staticmethod, classmethod)) else item
            inner = item.fget if isinstance(item, property) else inner
            if name.startswith("__") and not isinstance(inner, types.FunctionType):
                continue
            if isinstance(inner, types.FunctionType) or _is_plain(inner) or isinstance(inner, (str, tuple, list, dict)):
                self.say(name)
                self.read(inner, f"{path}.{name}", depth)

    def _object(self, value: Any, path: str, depth: int) -> None:
        self._class(type(value), path, depth)
        state = {k: v for k, v in vars(value).items() if k not in _IGNORED} if hasattr(value, "__dict__") else None
        if isinstance(value, nn.Module) and state is not None:
            state = {k: v for k, v in state.items() if not isinstance(v, StaysInEval)}
        if state is None or type(value).__module__ in ("builtins", "_io"):
            try:
                reduced = value.__reduce_ex__(2)
            except Exception:
                raise NoFingerprint(f"{path} is a {type(value).__name__}, whose content is not known") from None
            if isinstance(reduced, tuple):
                reduced = tuple(
                    list(part) if index > 2 and part is not None else part for index, part in enumerate(reduced)
                )
            self.read(reduced, path, depth)
            return
        for name, item in state.items():
            self.say(name)
            self.read(item, f"{path}.{name}", depth)


def _is_plain(value: object) -> bool:
    return value is None or type(value) in (bool, int, float, complex, bytes) or isinstance(value, enum.Enum)


def _status(path: Path) -> os.stat_result:
    """Of a file, or of a link that leads nowhere."""
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def _library(module: str | None) -> str | None:
    """The version of the installed package that a module belongs to; ``None`` for code of the user's own."""
    top = (module or "").partition(".")[0]
    if top == "__main__":
        return None
    if top in sys.stdlib_module_names:
        return "python"
    package = sys.modules.get(top)
    version = getattr(package, "__version__", None)
    is_installed = top == "relume" or _is_installed(str(getattr(package, "__file__", None)))
    return str(version) if isinstance(version, str) and is_installed else None


@functools.cache
def _is_installed(file: str) -> bool:
    """Whether a package lies where packages are installed: one in a project's folder changes under the same version."""
    return not _INSTALLED.isdisjoint(Path(file).parts)


_INSTALLED = frozenset({"site-packages", "dist-packages"})
