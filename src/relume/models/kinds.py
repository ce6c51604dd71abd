"""What a file is, told by its content and not by its name."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

from relume.checkpoint.pack import MAX_HEADER_BYTES
from relume.errors import ModelFileError, UnsafeFileError

Kind = Literal["safetensors", "json", "torch", "pt2", ""]

_HEAD_BYTES = 1024
_MAX_DIRECTORY_BYTES = 16 << 20  # about 150,000 tensors; zipfile makes ten times that of it
_HDF5 = "an HDF5 file, such as Keras writes"
_GET_WEIGHTS = "Load it with the library that wrote it, and save its weights: relume.save_weights(state_dict, path)."
_GET_AGAIN = "Get the file anew."

_MAGIC: list[tuple[int, bytes, str, str]] = [
    (0, b"version https://git-lfs", "a pointer of git-lfs and not the file that it stands for", "Run: git lfs pull."),
    (0, b"\x89HDF\r\n\x1a\n", _HDF5, _GET_WEIGHTS),
    (0, b"GGUF", "a GGUF file of llama.cpp, with quantized weights", _GET_WEIGHTS),
    (0, b"GGML", "a GGML file of llama.cpp, with quantized weights", _GET_WEIGHTS),
    (0, b"\x93NUMPY", "an array of numpy", "Load it with numpy.load, and save it by a name: save_weights({name: array}, path)."),
    (4, b"TFL3", "a TensorFlow Lite model", _GET_WEIGHTS),
    (0, b"\x1f\x8b", "compressed by gzip", "Unpack it first: gunzip, or tar xzf."),
    (0, b"BZh", "compressed by bzip2", "Unpack it first: bunzip2, or tar xjf."),
    (0, b"\xfd7zXZ\0", "compressed by xz", "Unpack it first: unxz, or tar xJf."),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "Unpack it first: unzstd."),
    (0, b"7z\xbc\xaf\x27\x1c", "an archive of 7-Zip", "Unpack it first."),
    (0, b"Rar!", "an archive of RAR", "Unpack it first."),
    (257, b"ustar", "a tar archive", "Unpack it first: tar xf."),
    (0, b"\x7fELF", "a program or a shared library", "That is no file of weights."),
    (0, b"MZ", "a program of Windows", "That is no file of weights."),
    (0, b"%PDF", "a PDF document", "That is no file of weights."),
    (0, b"\x89PNG", "an image", "That is no file of weights."),
    (0, b"\xff\xd8\xff", "an image", "That is no file of weights."),
    (0, b"SQLite format 3\0", "a database of SQLite", "That is no file of weights."),
]  # fmt: skip
_IN_OLD_TORCH_TAR = (b"sys_info", b"pickle", b"tensors", b"storages")
_HTML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,400}?-->\s*)?<(?:!doctype|html|head|body)", re.I | re.S)
_ONNX = re.compile(
    rb"\x08[\x01-\x40](?:\x12.(?:pytorch|tf2onnx|onnx|skl2onnx|keras)|.{0,60}?(?:ir_version|onnx))", re.S
)
_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+\Z")


def kind_of(path: Path) -> Kind:
    """How the file is written, where relume can read that; ``""`` where only a reader of old pickles can tell.

    Raises:
        ModelFileError: it cannot be read, is empty, or is a zip archive of something else.
    """
    head, size = _head(path)
    if not size:
        raise ModelFileError(f"{path} is empty: a download or a save that was broken off. {_GET_AGAIN}")
    if head[257:262] == b"ustar" and head[:100].rstrip(b"\0") not in _IN_OLD_TORCH_TAR:
        raise described(path)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _kind_of_zip(path)
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and (length <= max(MAX_HEADER_BYTES, size) or path.suffix == ".safetensors"):
        return "safetensors"
    if head.lstrip()[:1] == b"{":
        return "json"
    return ""


def described(path: Path) -> ModelFileError:
    """The error for a file that relume does not read: what it is, and what to do."""
    head, size = _head(path)
    found = _description(head)
    if found is None:
        return ModelFileError(
            f"{path} ({size} bytes, beginning with {head[:8].hex(' ')}) is no file of weights that relume knows, or is damaged. "
            "What is read: .safetensors, single or with an index, what torch.save wrote, TorchScript, .pt2, and checkpoints."
        )
    what, remedy = found
    return ModelFileError(f"{path} is {what}, and no file of weights that relume reads. {remedy}")


def _description(head: bytes) -> tuple[str, str] | None:
    for offset, magic, what, remedy in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return what, remedy
    if _HTML.match(head):
        return (
            "a web page",
            "A download got it instead of the file, such as an error or a login: open the address in a browser.",
        )
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        what = "a pickle that torch.save did not write (of scikit-learn or joblib, perhaps), which could run any code when loaded"
        return what, "If you trust it, save its weights where it was made: relume.save_weights(state_dict, path)."
    if head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda"):
        return "compressed by zlib (a pickle of joblib, perhaps)", _GET_WEIGHTS
    if _ONNX.match(head):
        return "an ONNX model", "Convert it where it was made, or read it with the package onnx."
    if not head.strip(b"\0"):
        return "nothing but zeros at its beginning: room that was reserved and never filled", _GET_AGAIN
    if _TEXT.match(head):
        return f"text ({head[:60].decode(errors='replace')!r} …)", "Give the path of the weights themselves."
    return None


def _kind_of_zip(path: Path) -> Kind:
    names = _names_in_zip(path)
    inner = {name.partition("/")[2] or name for name in names} | set(names)
    if "serialized_exported_program.json" in inner or any(
        name.startswith(("models/", "archive_format")) for name in inner
    ):
        return "pt2"
    if inner & {"data.pkl", "constants.pkl"}:
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        raise ModelFileError(
            f"{path} holds arrays of numpy. Save them by name: save_weights(dict(numpy.load(path)), NEW)."
        )
    if any(name.endswith((".safetensors", ".pt", ".pth", ".bin")) for name in names):
        raise ModelFileError(f"{path} is an archive with a file of weights in it. Unpack it first: unzip.")
    if "model.weights.h5" in inner:
        raise ModelFileError(f"{path} is a Keras model. {_GET_WEIGHTS}")
    listed = ", ".join(repr(name[:40]) for name in names[:5]) or "nothing"
    raise ModelFileError(f"{path} is a zip archive without weights of torch in it: it holds {listed}. {_GET_WEIGHTS}")


def _names_in_zip(path: Path) -> list[str]:
    """Names only, to tell what it is; who reads more vets it (`relume.models.archive`)."""
    try:
        with path.open("rb") as file:
            size = _directory_bytes(file)
            if size > _MAX_DIRECTORY_BYTES:
                raise UnsafeFileError(f"{path} is a zip archive whose directory alone has {size:,} bytes.")
            with zipfile.ZipFile(file) as archive:
                return archive.namelist()
    except UnsafeFileError:
        raise
    except Exception as error:  # what a damaged archive makes zipfile raise has no end
        reason = str(error) or type(error).__name__
        raise ModelFileError(
            f"{path} is a damaged zip archive, cut short perhaps: {reason:.200}. {_GET_AGAIN}"
        ) from error


def _directory_bytes(file: IO[bytes]) -> int:
    end: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    return int(end[zipfile._ECD_SIZE]) if end else 0  # type: ignore[attr-defined]


def _head(path: Path) -> tuple[bytes, int]:
    try:
        if not path.is_file():
            raise ModelFileError(f"{path} is not a file: it is a folder, a device or a pipe, or is not there.")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES), path.stat().st_size
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}. Check its owner and its rights.") from error
