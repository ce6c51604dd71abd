"""Files of ``torch.save`` and ``torch.jit.save``, opened without running anything that is in them."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from relume.errors import ClassicFileError, ModelFileError, UnsafeFileError
from relume.models.archive import ZIP_MAGIC, Archive, map_file
from relume.models.contents import Format, ModelFile
from relume.models.pickles.context import Context
from relume.models.pickles.inert import CONTAINERS, Inert, children
from relume.models.pickles.legacy import is_legacy, read_stream
from relume.models.pickles.machine import Machine
from relume.models.pickles.modules import module_state, readable_tensors, state_dict_in
from relume.models.pickles.script import as_modules, constants, read_code
from relume.models.pickles.storages import ZipStorages

_PICKLE = "data.pkl"
_START_BYTES = 512
_TAR_MAGIC_AT = 257
_MAX_LEVELS = 500
_SHOWN = 3


class _Read(NamedTuple):
    format: Format
    content: Any
    constants: Mapping[str, torch.Tensor]


def read_torch(path: str | Path, *, refuse: bool = True, verify: bool = False) -> ModelFile:
    """Open a file that ``torch.save`` or ``torch.jit.save`` wrote. No code in it runs, and nothing that it names is imported.

    Tensors and plain Python come out as they are; every other object as an `Inert`. Tensors are on the CPU, mapped from a
    zip file where they are (575 MB open in milliseconds), so nothing may overwrite the file while they are in use.

    Args:
        refuse: raise for a file that names what no weights need, such as ``os.system``. False lists it in ``suspicious``.
        verify: compare the checksum of every entry of a zip file first. Small entries' are always compared.

    Raises:
        ModelFileError: there is no such file, it is damaged, or neither of these wrote it.
        UnsafeFileError: it would have run code, or is not what it pretends to be; names what.

    Example:
        >>> layer = torch.nn.Linear(2, 1)
        >>> torch.save(layer, tmp_path / "whole.pt")
        >>> file = read_torch(tmp_path / "whole.pt")
        >>> file.content, list(file.state)
        (<torch.nn.modules.linear.Linear>, ['weight', 'bias'])
    """
    path = Path(path)
    memory = map_file(path)
    context = Context(path, len(memory))
    try:
        is_zip = memory[: len(ZIP_MAGIC)] == ZIP_MAGIC
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of dtypes and layouts that it calls experimental
            read = _from_zip(context, Archive(path), verify) if is_zip else _from_stream(context, memory)
        _check_depth(context, read.content)
        state, problem = _state(read, path)
    except ModelFileError as error:
        if refuse and context.suspicious:
            raise _refusal(context) from error
        raise
    if refuse and context.suspicious:
        raise _refusal(context)
    callables = {name: max(count, 1) for name, count in context.callables.items()}
    return ModelFile(
        path, read.format, state, content=read.content, callables=callables, suspicious=tuple(context.suspicious),
        size_bytes=len(memory), problem=problem,
    )  # fmt: skip


def is_torch_file(path: str | Path) -> bool:
    """Whether ``torch.save`` or ``torch.jit.save`` wrote a file, as far as its beginning and its directory tell.

    True also for one that is damaged; `read_torch` says how. Raises ModelFileError where it cannot be read.
    """
    memory = map_file(Path(path))
    start = memory[:_START_BYTES]
    if start[: len(ZIP_MAGIC)] != ZIP_MAGIC:
        return is_legacy(start) or _is_tar(start)
    try:
        return any(_is_pickle(name) for name in Archive(path).entries)
    except ModelFileError:
        return True


def _from_zip(context: Context, archive: Archive, verify: bool) -> _Read:
    roots = [name.removesuffix(f"/{_PICKLE}") for name in archive.entries if _is_pickle(name)]
    if len(roots) != 1:
        raise _not_ours(context, archive, len(roots))
    if verify and (bad := archive.damaged()):
        raise ModelFileError(
            f"{context.path} is damaged: the checksums of {', '.join(bad[:_SHOWN])} differ. Get it again."
        )
    (root,) = roots
    is_little = _byte_order(context, archive, root)
    if f"{root}/constants.pkl" not in archive.entries:
        return _Read("torch", _pickle(context, archive, root, _PICKLE, "data", is_little), {})
    classes = read_code(context, archive, root)
    held = _pickle(context, archive, root, "constants.pkl", "constants", is_little)
    content = _pickle(context, archive, root, _PICKLE, "data", is_little)
    _check_depth(context, content)
    return _Read("torchscript", as_modules(content, classes), constants(held))


def _pickle(context: Context, archive: Archive, root: str, name: str, folder: str, is_little: bool) -> Any:
    context.source = f"{root}/{name}"
    if archive.entries[context.source].is_deflated:
        raise context.unsafe("it is compressed, which torch never does with pickles")
    data = archive.read(context.source, context.size_bytes + (64 << 20))
    context.allow(len(data))
    return Machine(data, context, ZipStorages(context, archive, f"{root}/{folder}", is_little=is_little)).load()


def _byte_order(context: Context, archive: Archive, root: str) -> bool:
    name = f"{root}/byteorder"
    order = archive.read(name, 64) if name in archive.entries else b"little"
    if order not in (b"little", b"big"):
        raise context.damaged(f"its byte order is {order!r:.60}, and there are little and big")
    return order == b"little"


def _from_stream(context: Context, memory: mmap.mmap) -> _Read:
    start = memory[:_START_BYTES]
    if is_legacy(start):
        return _Read("torch legacy", read_stream(context, memory), {})
    if _is_tar(start):
        raise ModelFileError(
            f"{context.path} is a tar archive, which torch.save wrote before 0.1.12 (2017). Where an old torch is at hand: "
            "torch.save(torch.load(path), path)."
        )
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ModelFileError(
            f"{context.path} is a plain pickle (pickle.dump), not a file that torch.save wrote. Where it was made: "
            "torch.save(model.state_dict(), path)."
        )
    raise ModelFileError(
        f"{context.path} is damaged, or torch.save did not write it: it begins with {bytes(start[:16])!r}. Get the file again."
    )


def _not_ours(context: Context, archive: Archive, count: int) -> ModelFileError:
    names = list(archive.entries)
    if count:
        return context.unsafe(f"it has {count} pickles called {_PICKLE}, and readers differ in which one they take")
    if any(name.count("/") == 1 and name.endswith("/model.json") for name in names):
        what = "a TorchScript archive of PyTorch 1.0 or 1.1. Load and save it anew with a torch below 2.0"
    elif any("/models/" in name or "serialized_" in name for name in names):
        what = "an archive of torch.export (.pt2), which is opened as such"
    elif any(name.endswith("extern_modules") for name in names):
        what = (
            "a torch.package archive: a program, not weights. Where it was made: torch.save(model.state_dict(), path)"
        )
    else:
        what = f"a zip archive, and not one of torch: it holds {', '.join(names[:_SHOWN]) or 'nothing'}"[:300]
    return ModelFileError(f"{context.path} is {what}.")


def _is_pickle(name: str) -> bool:
    return name.count("/") == 1 and name.endswith(f"/{_PICKLE}")


def _is_tar(start: bytes) -> bool:
    return start[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


def _state(read: _Read, path: Path) -> tuple[Mapping[str, Any], str]:
    """The weights, and why they are not all of them."""
    if read.format == "torchscript":
        state = module_state(read.content) if isinstance(read.content, Inert) else {}
        return state or read.constants, ""
    try:
        return state_dict_in(read.content, path=path), ""
    except (
        ClassicFileError
    ) as error:  # a file without weights, with those of several models, or with some that are not read
        return readable_tensors(read.content), str(error)


def _check_depth(context: Context, content: Any) -> None:
    """A content that is nested too deep would end whoever goes through it by recursion."""
    seen: set[int] = set()
    level = [content]
    for _ in range(_MAX_LEVELS):
        below = [child for value in level for _, child in children(value)]
        level = []
        for child in below:
            if isinstance(child, CONTAINERS) and id(child) not in seen:
                seen.add(id(child))
                level.append(child)
        if not level:
            return
    raise context.unsafe(f"its content is nested more than {_MAX_LEVELS} deep")


def _refusal(context: Context) -> UnsafeFileError:
    listed = "; ".join(context.suspicious[:_SHOWN])
    more = f"; and {len(context.suspicious) - _SHOWN} more" if len(context.suspicious) > _SHOWN else ""
    return UnsafeFileError(
        f"{context.path} is refused: an ordinary reader of this file would have looked up or run what no weights need: "
        f"{listed}{more}. Nothing of it was run. Do not open it with torch.load(weights_only=False) or torch.jit.load; ask "
        "its author for a .safetensors file. `relume inspect` shows what is in it."
    )
