"""The archive of a graph: which entries it may have, and its tensors, mapped from the file.

The layout is torch's (``torch/csrc/export/pt2_archive_constants.h``). Since torch 2.9 each tensor is an entry of raw bytes;
what earlier versions wrote are pickles, which are refused.
"""

from __future__ import annotations

import io
import json
import math
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.archive import Archive
from relume.models.exported.schema import DTYPES, STRIDED

_MAX_JSON_BYTES = 512 << 20
_RAW = re.compile(r"(?:weight|tensor)_[0-9]{1,9}\Z")
_HOUSEKEEPING = {
    "version",
    "byteorder",
    ".data/version",
    ".data/serialization_id",
    ".format_version",
    ".storage_alignment",
}
_NATIVE = {
    "data/aotinductor/": "native code of AOTInductor",
    "data/executorch/": "a program of ExecuTorch",
    "data/mtia": "a program for MTIA",
    "xl_model_weights/": "weights of another program",
}
_BEFORE_2_9 = {"serialized_exported_program.json", "serialized_state_dict.pt", "serialized_state_dict.json"}
_PLAIN_PICKLED = re.compile(
    r"(?:torch\._utils _rebuild_(?:tensor|tensor_v2|parameter)|torch [A-Za-z0-9]+Storage|collections OrderedDict|"
    r"torch\.storage (?:Untyped|Typed)Storage|torch (?:Size|device))\Z"
)
_NAMES_OUT_OF_SIGHT = {"INST", "OBJ", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}


@dataclass(frozen=True)
class Package:
    """A ``.pt2`` file whose entries were checked; of its graph nothing was, and nothing was run.

    Attributes:
        program: the graph, as the file's JSON has it.
        state: parameters and persistent buffers by name, mapped from the file; tied ones share memory.
        constants: the other tensors that the graph uses.
        parameters: of both, which are parameters, and whether they want gradients.
    """

    path: Path
    program: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]
    parameters: Mapping[str, bool]
    size_bytes: int


def open_package(path: str | Path) -> Package:
    """Read a ``.pt2`` file's tensors, and its graph as data.

    Raises:
        ModelFileError: it is missing, damaged, or of a version that is not understood.
        UnsafeFileError: it holds pickles, native code or whatever no graph needs, or claims more than it holds.
    """
    entries = _Entries(Archive(path))
    name = _checked_names(entries)
    _check_text(entries, "archive_format", "pt2")
    _check_text(entries, "archive_version", "0")
    _check_sample_inputs(entries, name)
    parameters: dict[str, bool] = {}
    state = dict(_tensors(entries, "data/weights", _config(entries, name, "weights"), parameters))
    constants = dict(_tensors(entries, "data/constants", _config(entries, name, "constants"), parameters))
    program = _json(entries, f"models/{name}.json")
    return Package(entries.path, program, state, constants, parameters, entries.archive.size_bytes)


class _Entries:
    """The entries of an archive by their names within the one folder that all of them are in."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.path = archive, archive.path
        self._root = next(iter(archive.entries), "").partition("/")[0] + "/"
        if compressed := [name for name, entry in archive.entries.items() if entry.is_deflated]:
            raise UnsafeFileError(
                f"{archive.path} is refused: {compressed[0]!r} is compressed, which torch never does."
            )
        self.names = {name.removeprefix(self._root) for name in archive.entries}
        self._mapped: dict[str, torch.Tensor] = {}

    def size_bytes(self, name: str) -> int:
        return self.archive.entries[self._root + name].size_bytes

    def read(self, name: str, limit_bytes: int) -> bytes:
        return self.archive.read(self._root + name, limit_bytes)

    def mapped(self, name: str) -> torch.Tensor:
        """An entry's bytes; tensors of one entry share memory."""
        if name not in self._mapped:
            self._mapped[name] = self.archive.mapped(self._root + name)
        return self._mapped[name]


def _checked_names(entries: _Entries) -> str:
    """The name of the one model; every entry is one that a graph needs, or makes an error."""
    if _BEFORE_2_9 & set(entries.names):
        raise ModelFileError(
            f"{entries.path} was written by torch 2.8 or older, which put the tensors of a graph into pickles: they are not "
            "read. Export the model again with torch 2.9 or newer, or save it as .safetensors."
        )
    models = [name for name in entries.names if name.startswith("models/")]
    if len(models) != 1 or not re.fullmatch(r"models/\w{1,80}\.json", models[0], re.ASCII):
        found = ", ".join(models)[:200] or "none"
        raise ModelFileError(f"{entries.path} is no .pt2 file with one graph: its models are {found}.")
    model = models[0].removeprefix("models/").removesuffix(".json")
    configs = {f"data/weights/{model}_weights_config.json", f"data/constants/{model}_constants_config.json"}
    known = configs | _HOUSEKEEPING | {"archive_format", "archive_version", models[0], f"data/sample_inputs/{model}.pt"}
    for name in entries.names:
        if name not in known:
            _check_entry(entries.path, name)
    return model


def _check_entry(path: Path, name: str) -> None:
    folder, _, last = name.rpartition("/")
    if (folder in ("data/weights", "data/constants") and _RAW.match(last)) or name.startswith("extra/"):
        return
    for prefix, what in _NATIVE.items():
        if name.startswith(prefix):
            raise UnsafeFileError(f"{path} holds {what} ({name!r:.100}), which is not loaded: only graphs are.")
    if folder == "data/constants" or last.endswith(".pt"):
        raise UnsafeFileError(
            f"{path} has a pickle, {name!r:.100}: unpickling runs code, and nothing of it was. Export the model again with "
            "torch 2.9 or newer and without custom objects, or save it as .safetensors."
        )
    raise UnsafeFileError(f"{path} has an entry {name!r:.100} that is no part of a graph. Nothing of it was run.")


def _check_text(entries: _Entries, name: str, expected: str) -> None:
    found = entries.read(name, 100).decode("ascii", "replace").strip()
    if found != expected:
        raise ModelFileError(f"{entries.path}: its {name} is {found!r}, and {expected!r} is what is understood.")


def _check_sample_inputs(entries: _Entries, model: str) -> None:
    """They are never read, by anyone who opens the file with relume. What names code there says what the file is."""
    name = f"data/sample_inputs/{model}.pt"
    if name not in entries.names or not entries.size_bytes(name):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(entries.read(name, _MAX_JSON_BYTES))) as inner:
            pickles = [one for one in inner.infolist() if one.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > 10 * pickles[0].compress_size + 1000:
                raise ValueError("no single pickle")
            named = _named(inner.read(pickles[0]))
    except Exception as error:
        raise UnsafeFileError(
            f"{entries.path}: its sample inputs are not what torch.save writes ({error!s:.100})."
        ) from error
    strange = sorted(one for one in named if not _PLAIN_PICKLED.match(one))
    if strange:
        raise UnsafeFileError(
            f"{entries.path}: its sample inputs are a pickle that names {', '.join(strange)[:200]}: torch.export.load would "
            "call it. Nothing of it was run."
        )


def _named(pickled: bytes) -> Iterator[str]:
    """What a pickle looks up by name. Nothing is unpickled."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            yield str(argument)
        elif opcode.name in _NAMES_OUT_OF_SIGHT:
            yield f"something by {opcode.name}"


def _config(entries: _Entries, model: str, kind: str) -> Mapping[str, Any]:
    document = _json(entries, f"data/{kind}/{model}_{kind}_config.json")
    config = document.get("config")
    if not isinstance(config, dict):
        raise ModelFileError(f"{entries.path}: its list of {kind} is damaged.")
    return config


def _json(entries: _Entries, name: str) -> dict[str, Any]:
    try:
        document = json.loads(entries.read(name, _MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{entries.path}: {name} is no JSON ({error!s:.100}): the file is damaged.") from error
    if not isinstance(document, dict):
        raise ModelFileError(
            f"{entries.path}: {name} is {type(document).__name__}, and not a table: the file is damaged."
        )
    return document


def _tensors(
    entries: _Entries, folder: str, config: Mapping[str, Any], parameters: dict[str, bool]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, payload in config.items():
        try:
            file_name, is_param, use_pickle = (payload[key] for key in ("path_name", "is_param", "use_pickle"))
            meta = payload["tensor_meta"]
            if use_pickle is not False or not isinstance(file_name, str) or not _RAW.match(file_name):
                raise UnsafeFileError(
                    f"{entries.path}: {name!r:.100} is a pickle ({file_name!r:.60}): unpickling runs code, and nothing of it "
                    "was. Export the model without custom objects and tensor subclasses, or save it as .safetensors."
                )
            yield name, _tensor(entries, f"{folder}/{file_name}", meta, name)
            if is_param is True:
                parameters[name] = meta["requires_grad"] is True
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(
                f"{entries.path}: what it says of {name!r:.100} is damaged ({error!r:.80})."
            ) from error


def _tensor(entries: _Entries, entry: str, meta: Mapping[str, Any], name: str) -> torch.Tensor:
    held_bytes = entries.mapped(entry)
    dtype = getattr(torch, DTYPES.get(meta["dtype"], ""), None)
    if dtype is None or meta["layout"] != STRIDED:
        raise ModelFileError(
            f"{entries.path}: {name!r:.100} has dtype number {meta['dtype']!r:.20} and layout {meta['layout']!r:.20}, "
            f"which this relume with torch {torch.__version__} does not read."
        )
    sizes, strides = ([_count(one) for one in meta[key]] for key in ("sizes", "strides"))
    start, numel = _count(meta["storage_offset"]), math.prod(sizes)
    held = held_bytes.numel() // dtype.itemsize
    last = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) if numel else -1
    if last >= held or numel > held:
        raise UnsafeFileError(
            f"{entries.path}: {name!r:.100} claims {numel} elements of {dtype} up to place {last}, and its entry holds {held}."
        )
    if not numel:
        return torch.empty(sizes, dtype=dtype)
    flat = held_bytes[: held * dtype.itemsize]
    if flat.data_ptr() % dtype.itemsize:  # the kernels of torch expect elements at multiples of their size
        flat = flat.clone()
    return flat.view(dtype).as_strided(sizes, strides, start)


def _count(value: Mapping[str, Any]) -> int:
    number = value["as_int"]
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise TypeError(f"{number!r:.40} is no size")
    return number
