"""Files of torch, zip archives and pickles put together by hand, so that they can lie."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path

MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def text(value: str) -> bytes:
    """The instruction for a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """The instruction for an integer of 64 bits."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def named(module: str, name: str) -> bytes:
    """The instruction for a class or function."""
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    """The instructions that call a function with what others have made."""
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage", *more: bytes) -> bytes:
    """The instructions for a storage; files of the older format have None at the end."""
    return (
        b"(" + text("storage") + named("torch", kind) + text(key) + text("cpu") + number(numel) + b"".join(more) + b"tQ"
    )


def sizes(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    *, memory: bytes = b"", offset: int = 0, size: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,)
) -> bytes:
    """The instructions for a tensor."""
    parts = (memory or storage(), number(offset), sizes(*size), sizes(*stride), b"\x89", b"}")
    return call("torch._utils", "_rebuild_tensor_v2", *parts)


def state(*values: bytes) -> bytes:
    """A whole pickle: a dictionary with these values."""
    items = b"".join(text(f"w{number}") + value for number, value in enumerate(values))
    return b"\x80\x02}(" + items + b"u."


def torch_zip(path: Path, data: bytes, entries: dict[str, bytes] | None = None) -> Path:
    """A file as torch.save makes it now, with one storage of 16 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in ({"data/0": bytes(16)} if entries is None else entries).items():
            archive.writestr(f"archive/{name}", content)
    return path


def torch_legacy(path: Path, data: bytes, keys: tuple[str, ...] = ("0",), storages: bytes | None = None) -> Path:
    """A file as torch.save made it before 1.6, with one storage of 16 bytes."""
    memory = struct.pack("<q", 4) + bytes(16) if storages is None else storages
    path.write_bytes(MAGIC + data + pickle.dumps(list(keys), 2) + memory)
    return path


class Entry:
    """One entry of a zip archive, of which every field can be a lie."""

    def __init__(self, name: str | bytes, data: bytes = b"data", *, deflate: bool = False) -> None:
        self.name = name.encode() if isinstance(name, str) else name
        self.data = data
        if deflate:
            compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
            self.data = compressor.compress(data) + compressor.flush()
        self.method = 8 if deflate else 0
        self.crc, self.stored, self.size = zlib.crc32(data), len(self.data), len(data)
        self.flags = self.made_by = self.external = self.disk = 0
        self.extra = b""
        self.offset: int | None = None
        self.local: dict[str, int | bytes] = {}

    def lie(self, **fields: int | bytes) -> Entry:
        """Change what the directory says, and with it what the entry's own header says."""
        for name, value in fields.items():
            setattr(self, name, value)
        return self

    def header(self, **fields: int | bytes) -> Entry:
        """Change what the entry's own header says."""
        self.local = fields
        return self

    def _local(self) -> bytes:
        of = {**vars(self), **self.local}
        return (
            struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, of["flags"], of["method"], 0, 0, of["crc"], of["stored"], of["size"], len(of["name"]), len(of["extra"]))
            + of["name"] + of["extra"] + self.data
        )  # fmt: skip

    def _central(self, at: int) -> bytes:
        return (
            struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20 | self.made_by << 8, 20, self.flags, self.method, 0, 0, self.crc, self.stored, self.size, len(self.name), len(self.extra), 0, self.disk, 0, self.external, at if self.offset is None else self.offset)
            + self.name + self.extra
        )  # fmt: skip


def zip_of(path: Path, *entries: Entry, count: int | None = None, gap: bytes = b"", comment: bytes = b"") -> Path:
    """A zip archive of these entries."""
    body, directory = b"", b""
    for entry in entries:
        directory += entry._central(len(body))
        body += entry._local()
    total = len(entries) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, total, total, len(directory), len(body), len(comment))
    path.write_bytes(body + directory + gap + end + comment)
    return path
