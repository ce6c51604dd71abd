"""Pickles made to do harm: each is refused by name, none runs, and none takes memory or time out of proportion."""

from __future__ import annotations

import functools
import io
import os
import pickle
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pickle_files import MAGIC, call, named, number, sizes, state, storage, tensor, text, torch_legacy, torch_zip
from torch import nn

from relume.errors import ModelFileError, UnsafeFileError
from relume.models.pickles import Inert, is_torch_file, module_tree, read_torch, state_dict_in

CANARY = "canary"
TOUCH = text(f"touch {CANARY}")
P = b"\x80\x02"
P4 = b"\x80\x04"


@pytest.fixture(autouse=True)
def _canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whatever runs leaves a file, and that no test may."""
    monkeypatch.chdir(tmp_path)
    modules = set(sys.modules)
    yield
    assert not Path(CANARY).exists()
    assert "antigravity" not in set(sys.modules) - modules


def _by_reduce(function: Any, *arguments: Any) -> bytes:
    class Made:
        def __reduce__(self) -> Any:
            return function, arguments

    return pickle.dumps({"w": Made()}, 2)


CODE: dict[str, tuple[bytes, str]] = {
    "os.system": (_by_reduce(os.system, f"touch {CANARY}"), rf"(posix|nt)\.system\('touch {CANARY}'\)"),
    "os.system by its name": (state(call("os", "system", TOUCH)), r"os\.system\('touch canary'\)"),
    "subprocess": (_by_reduce(subprocess.Popen, ["touch", CANARY]), r"subprocess\.Popen\(\['touch', 'canary'\]\)"),
    "eval": (_by_reduce(eval, f"open('{CANARY}', 'w')"), r"builtins\.eval\("),
    "exec": (_by_reduce(exec, f"open('{CANARY}', 'w')"), r"builtins\.exec\("),
    "open": (_by_reduce(open, CANARY, "w"), r"io\.open\('canary', 'w'\)"),
    "python 2": (state(call("__builtin__", "eval", text("1"))), r"builtins\.eval\('1'\)"),
    "commands": (state(call("commands", "getoutput", TOUCH)), r"subprocess\.getoutput"),
    "an import": (state(call("builtins", "__import__", text("antigravity"))), r"builtins\.__import__\('antigravity'\)"),
    "importlib": (state(call("importlib", "import_module", text("antigravity"))), r"importlib\.import_module"),
    "a module named only": (state(named("os", "system")), r"os\.system \(byte"),
    "getattr": (
        state(call("builtins", "getattr", named("os", "path"), text("os"))),
        r"os\.path",
    ),
    "getattr chain": (
        state(
            call(
                "builtins",
                "getattr",
                call("builtins", "getattr", named("torch", "serialization"), text("os")),
                text("system"),
            )
            + b"("
            + TOUCH
            + b"tR"
        ),
        r"torch\.serialization\.os\.system\('touch canary'\)",
    ),
    "getattr of a dunder": (
        state(call("builtins", "getattr", named("torch.nn", "Linear"), text("__globals__"))),
        r"torch\.nn\.Linear\.__globals__",
    ),
    "getattr of an object": (
        state(call("builtins", "getattr", call("a", "B"), text("__class__"))),
        r"getattr\(a\.B\(\), '__class__'\)",
    ),
    "a call of what a call returns": (state(call("a", "b") + b"(" + TOUCH + b"tR"), r"a\.b\('touch canary'\)"),
    "a name with dots": (
        P4 + b"}(" + text("w") + text("torch.serialization") + text("os.system") + b"\x93" + b"(" + TOUCH + b"tRu.",
        r"torch\.serialization\.os\.system\('touch canary'\)",
    ),
    "INST": (P + b"}(" + text("w") + b"(" + TOUCH + b"ios\nsystem\nu.", r"os\.system\('touch canary'\)"),
    "OBJ": (P + b"}(" + text("w") + b"(" + named("os", "system") + TOUCH + b"ou.", r"os\.system\('touch canary'\)"),
    "NEWOBJ": (
        state(named("subprocess", "Popen") + b"(" + TOUCH + b"t\x81"),
        r"subprocess\.Popen\('touch canary'\)",
    ),
    "NEWOBJ_EX": (
        P4 + b"}(" + text("w") + named("subprocess", "Popen") + b"(" + TOUCH + b"t}\x92u.",
        r"subprocess\.Popen\('touch canary'\)",
    ),
    "extension registry": (state(b"\x82\x01)R"), r"number 1 of a registry"),
    "attributes of a class": (
        state(named("torch.nn", "Linear") + b"}" + text("forward") + named("os", "system") + b"sb"),
        r"os\.system",
    ),
    "attributes of a harmless class": (
        state(named("torch.nn", "Linear") + b"}" + text("forward") + b"Nsb"),
        r"the attributes of torch\.nn\.Linear itself are set",
    ),
    "the environment": (state(named("os", "environ") + text("PATH") + text(".") + b"s"), r"os\.environ"),
    "items of a class": (state(named("a", "B") + text("x") + b"Ns"), r"items are put into a\.B itself"),
    "partial": (state(call("functools", "partial", named("os", "system"), TOUCH)), r"os\.system"),
    "methodcaller": (state(call("operator", "methodcaller", text("run"))), r"operator\.methodcaller\('run'\)"),
    "torch.load": (state(call("torch", "load", text("x.pt"))), r"torch\.load\('x\.pt'\)"),
    "torch.hub": (state(call("torch.hub", "load", text("a/b"))), r"torch\.hub\.load"),
    "torch.jit": (state(call("torch.jit", "load", text("x.pt"))), r"torch\.jit\.load"),
    "pickle.loads": (state(call("pickle", "loads", b"U\x01.")), r"pickle\.loads"),
    "_pickle": (state(call("_pickle", "loads", b"U\x01.")), r"_pickle\.loads"),
    "code objects": (state(call("types", "CodeType", number(0))), r"types\.CodeType\(0\)"),
    "functions": (state(call("types", "FunctionType", b"N")), r"types\.FunctionType"),
    "a class made at once": (
        state(call("builtins", "type", text("A"), b")", b"}")),
        r"builtins\.type\('A', \(\), \{\}\)",
    ),
    "marshal": (state(call("marshal", "loads", b"U\x01.")), r"marshal\.loads"),
    "runpy": (state(call("runpy", "run_path", text("x.py"))), r"runpy\.run_path"),
    "ctypes": (state(call("ctypes", "CDLL", text("x.so"))), r"ctypes\.CDLL"),
    "shutil": (state(call("shutil", "rmtree", text("/"))), r"shutil\.rmtree\('/'\)"),
    "socket": (state(call("socket", "create_connection", text("x"))), r"socket\.create_connection"),
    "webbrowser": (state(call("webbrowser", "open", text("x"))), r"webbrowser\.open"),
    "timeit": (state(call("timeit", "timeit", text("x"))), r"timeit\.timeit"),
    "a library that is no data": (state(call("netrc", "netrc", text("x"))), r"netrc\.netrc\('x'\)"),
    "in a key": (P + b"}" + call("os", "system", TOUCH) + b"Ns.", r"os\.system\('touch canary'\)"),
    "as a class of a tensor": (
        state(
            call(
                "torch._tensor",
                "_rebuild_from_type_v2",
                named("os", "system"),
                named("torch", "Tensor"),
                b"(" + TOUCH + b"t",
                b"}",
            )
        ),
        r"os\.system\('touch canary'\)",
    ),
    "as the class of an old object": (
        state(call("copy_reg", "_reconstructor", named("subprocess", "Popen"), named("__builtin__", "object"), b"N")),
        r"subprocess\.Popen\(\)",
    ),
    "as a factory": (state(call("collections", "defaultdict", named("os", "getpid"))), r"os\.getpid"),
    "in hooks": (
        state(
            call(
                "torch._utils",
                "_rebuild_tensor_v2",
                storage(),
                number(0),
                sizes(4),
                sizes(1),
                b"\x89",
                call("os", "system", TOUCH),
            )
        ),
        r"os\.system\('touch canary'\)",
    ),
    "thrown away": (P + call("os", "system", TOUCH) + b"0}.", r"os\.system\('touch canary'\)"),
    "before a broken end": (P + call("os", "system", TOUCH) + b"\xff.", r"os\.system\('touch canary'\)"),
    "dill": (state(call("dill._dill", "_create_code", number(1))), r"dill\._dill\._create_code"),
    "a registered codec": (state(call("os", "popen", TOUCH)), r"os\.popen"),
}


@pytest.mark.parametrize("name", CODE)
def test_files_that_would_run_code_are_refused_with_what_they_would_have_run(name: str) -> None:
    data, message = CODE[name]
    with pytest.raises(UnsafeFileError, match=rf"a\.pt is refused.*{message}.*Nothing of it was run"):
        read_torch(torch_zip(Path("a.pt"), data))


@pytest.mark.parametrize("name", sorted(CODE.keys() - {"before a broken end"}))
def test_inspection_shows_what_would_have_run(name: str) -> None:
    file = read_torch(torch_zip(Path("a.pt"), CODE[name][0]), refuse=False)
    assert file.suspicious and all("byte" in line for line in file.suspicious)


def test_code_is_found_in_the_older_format() -> None:
    for data in (state(call("os", "system", TOUCH)), state(tensor(memory=_old_storage()), call("os", "system", TOUCH))):
        keys = ("0",) if b"storage" in data else ()
        path = torch_legacy(Path("a.pt"), data, keys, None if keys else b"")
        with pytest.raises(UnsafeFileError, match=r"os\.system\('touch canary'\)"):
            read_torch(path)
    evil = pickle.dumps({"a": 1}, 2)[:-1] + call("os", "system", TOUCH) + b"."
    Path("b.pt").write_bytes(MAGIC[: MAGIC.index(b"}")] + call("os", "system", TOUCH) + b"." + evil)
    with pytest.raises(UnsafeFileError, match=r"os\.system"):
        read_torch("b.pt")


def _old_storage(key: str = "0", numel: int = 4, view: bytes = b"N") -> bytes:
    return storage(key, numel, "FloatStorage", view)


def test_code_is_found_in_the_source_of_an_old_model() -> None:
    module = b"(" + text("module") + named("os", "system") + text("a.py") + text("class A: ...") + b"tQ"
    with pytest.raises(UnsafeFileError, match=r"os\.system\('touch canary'\)"):
        read_torch(torch_legacy(Path("a.pt"), state(module + b"(" + TOUCH + b"tR"), (), b""))


def _nested_storage(size_bytes: int) -> bytes:
    """The instruction for the bytes of a file of the older format with one tensor."""
    data = state(tensor(memory=storage("0", size_bytes // 4, "FloatStorage", b"N"), size=(1,)))
    content = MAGIC + data + pickle.dumps(["0"], 2) + (size_bytes // 4).to_bytes(8, "little") + bytes(size_bytes)
    return b"\x8e" + len(content).to_bytes(8, "little") + content


def _nested(data: bytes) -> bytes:
    content = MAGIC + data + pickle.dumps([], 2)
    return call("torch.storage", "_load_from_bytes", b"\x8e" + len(content).to_bytes(8, "little") + content)


def test_code_is_found_in_pickles_within_pickles() -> None:
    evil = _nested(P + call("os", "system", TOUCH) + b".")
    for depth in range(3):
        with pytest.raises(UnsafeFileError, match=r"os\.system\('touch canary'\)"):
            read_torch(torch_zip(Path(f"{depth}.pt"), state(evil)))
        evil = _nested(P + evil + b".")
    for _ in range(4):
        evil = _nested(P + evil + b".")
    with pytest.raises(UnsafeFileError, match="more than 4 deep"):
        read_torch(torch_zip(Path("a.pt"), state(evil)))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import os", "import os"),
        ("    from subprocess import call", "from subprocess import call"),
        ("    return os.system('x')", "os.system"),
        ('    x = eval("1")', "eval"),
        ('    x = __import__("os")', "__import__"),
        ('    x = torch.from_file("a", False, 3)', "torch.from_file"),
        ('    x = ops.aten.save(x, "a")', "ops.aten.save"),
    ],
)
def test_code_that_no_model_needs_is_found_in_torchscript(line: str, message: str) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), "a.pt")
    _rewritten(Path("a.pt"), lambda name, data: data + f"\n{line}\n".encode() if name.endswith(".py") else data)
    with pytest.raises(UnsafeFileError, match=rf"TorchScript code: .*{message}"):
        read_torch("a.pt")
    assert list(read_torch("a.pt", refuse=False).state) == ["weight", "bias"]


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("entry", ["data.pkl", "constants.pkl"])
def test_pickled_code_is_found_in_torchscript(entry: str) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), "a.pt")
    _rewritten(Path("a.pt"), lambda name, data: state(call("os", "system", TOUCH)) if name.endswith(entry) else data)
    with pytest.raises(UnsafeFileError, match=rf"os\.system\('touch canary'\) \(byte \d+ of a/{entry}\)"):
        read_torch("a.pt")


def _rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as old:
        contents = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in contents.items():
            new.writestr(name, data)


# ---------------------------------------------------------------------------------------------------- lies about tensors

LIES: dict[str, tuple[bytes, str]] = {
    "size beyond its storage": (state(tensor(size=(5,))), "reaches to byte 20 of a storage of 16 bytes"),
    "offset beyond its storage": (state(tensor(offset=1)), "reaches to byte 20"),
    "stride beyond its storage": (state(tensor(stride=(2,))), "reaches to byte 28"),
    "negative stride": (state(tensor(stride=(-1,), offset=3)), "makes no sense"),
    "negative offset": (state(tensor(offset=-1)), "makes no sense"),
    "negative size": (state(tensor(size=(-4,))), "makes no sense"),
    "size of 64 bits": (state(tensor(size=(2**63 - 1,), stride=(2**63 - 1,))), "reaches to byte"),
    "size that overflows": (state(tensor(size=(2**40, 2**40), stride=(0, 0))), "tensors claim"),
    "expanded to terabytes": (state(tensor(size=(10**12,), stride=(0,))), "tensors claim 4,000,000,000,000 bytes"),
    "expanded often": (
        state(*[tensor(size=(10**6 + n,), stride=(0,)) for n in range(20)]),
        "tensors claim",
    ),
    "too many dimensions": (state(tensor(size=(1,) * 65, stride=(1,) * 65)), "makes no sense"),
    "more strides than sizes": (state(tensor(stride=(1, 1))), "makes no sense"),
    "a size that is text": (state(tensor()[:-1] + b"0" + text("x") + b"R"), "makes no sense"),
    "storage with another size": (state(tensor(memory=storage(numel=5))), "claims that .* has 20 bytes.* has 16"),
    "storage that is smaller": (state(tensor(memory=storage(numel=3), size=(3,))), "claims that .* has 12 bytes"),
    "storage of 2**62 elements": (state(tensor(memory=storage(numel=2**62))), "claims that"),
    "storage of negative size": (state(tensor(memory=storage(numel=-1))), "and not to a storage"),
    "storage that is not there": (state(tensor(memory=storage("7"))), "archive/data/7', which is not in the archive"),
    "storage out of its folder": (state(tensor(memory=storage("../data.pkl"))), "which is not in the archive"),
    "no storage": (state(tensor(memory=b"N")), "makes no sense"),
    "storage of no class": (state(tensor(memory=storage(kind="OddStorage"))), "and not to a storage"),
    "unknown persistent id": (state(text("x") + b"Q"), "it refers to 'x', and not to a storage"),
    "persistent id of a module": (
        state(b"(" + text("module") + named("a", "B") + b"NNtQ"),
        "and not to a storage of tensors",
    ),
    "persistent id as text": (state(b"Pstorage\n"), "it refers to 'storage'"),
    "indices out of a sparse tensor": (
        state(
            call(
                "torch._utils",
                "_rebuild_sparse_tensor",
                call("torch.serialization", "_get_layout", text("torch.sparse_coo")),
                b"("
                + call("torch._utils", "_rebuild_tensor_v2", storage("1", 1, "LongStorage"), number(0), sizes(1, 1), sizes(1, 1), b"\x89}")
                + tensor(size=(1,))
                + sizes(3)
                + b"t",
            )
        ),
        "makes no sense",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_tensors_that_are_not_there_are_refused(name: str) -> None:
    data, message = LIES[name]
    indices = (1000).to_bytes(8, "little")
    path = torch_zip(Path("a.pt"), data, {"data/0": bytes(16), "data/1": indices})
    with pytest.raises(ModelFileError, match=message):
        read_torch(path)


OLD_LIES: dict[str, tuple[bytes, tuple[str, ...], bytes | None, str]] = {
    "size beyond its storage": (state(tensor(memory=_old_storage(), size=(5,))), ("0",), None, "reaches to byte 20"),
    "another count": (state(tensor(memory=_old_storage(numel=3), size=(3,))), ("0",), None, "has two sizes"),
    "storage of exabytes": (
        state(tensor(memory=_old_storage(numel=2**60))),
        ("0",),
        None,
        "claims .* bytes, where 16 are",
    ),
    "no bytes": (state(tensor(memory=_old_storage())), ("0",), b"", "claims 16 bytes, where 0 are left"),
    "negative count": (state(tensor(memory=_old_storage())), ("0",), b"\xff" * 8 + bytes(16), "has two sizes"),
    "not listed": (state(tensor(memory=_old_storage())), (), None, "1 of its storages are missing"),
    "listed twice": (state(tensor(memory=_old_storage())), ("0", "0"), None, "lists the storage '0' twice"),
    "listed and not used": (state(), ("0",), None, "or no tensor is in it"),
    "view beyond": (
        state(tensor(memory=_old_storage(view=b"(" + text("v") + number(2) + number(3) + b"t"))),
        ("0",),
        None,
        "claims bytes beyond the end of another",
    ),
    "two sizes": (
        state(tensor(memory=_old_storage()), tensor(memory=_old_storage(numel=8))),
        ("0",),
        None,
        "two sizes",
    ),
}


@pytest.mark.parametrize("name", OLD_LIES)
def test_old_files_with_tensors_that_are_not_there_are_refused(name: str) -> None:
    data, keys, storages, message = OLD_LIES[name]
    with pytest.raises(ModelFileError, match=message):
        read_torch(torch_legacy(Path("a.pt"), data, keys, storages))


def test_a_view_of_a_storage_in_an_old_file_is_read() -> None:
    view = _old_storage(view=b"(" + text("v") + number(1) + number(3) + b"t")
    memory = (4).to_bytes(8, "little") + torch.arange(4.0).numpy().tobytes()
    path = torch_legacy(Path("a.pt"), state(tensor(memory=view, size=(2,), offset=1)), ("0",), memory)
    assert read_torch(path).state["w0"].tolist() == [2, 3]


def test_two_pickles_in_one_archive_are_refused() -> None:
    torch_zip(Path("a.pt"), state(tensor()), {"data/0": bytes(16), "../b/data.pkl": b""})
    with pytest.raises(UnsafeFileError, match="leads out of the archive"):
        read_torch("a.pt")
    with zipfile.ZipFile("b.pt", "w") as file:
        for root in ("archive", "other"):
            file.writestr(f"{root}/data.pkl", state())
    with pytest.raises(UnsafeFileError, match="has 2 pickles called data.pkl"):
        read_torch("b.pt")


# ------------------------------------------------------------------------------------------------- broken instructions

BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "ends in the middle"),
    "no end": (P + b"}", "ends in the middle"),
    "nothing to return": (P + b".", "makes no sense"),
    "unknown instruction": (P + b"\xff.", r"byte 2 is no instruction of a pickle \(0xff\)"),
    "unknown protocol": (b"\x80\x06}.", "has the protocol 6"),
    "text of 4 GB": (P + b"X\xff\xff\xff\xffab.", "claims 4,294,967,295 bytes, where 3 are left"),
    "bytes of exabytes": (P + b"\x8e" + b"\xff" * 7 + b"\x7fab.", "claims .* bytes, where"),
    "bytearray of exabytes": (P + b"\x96" + b"\xff" * 7 + b"\x7fab.", "claims .* bytes, where"),
    "text of exabytes": (P + b"\x8d" + b"\xff" * 8 + b"ab.", "claims .* bytes, where"),
    "frame of exabytes": (P4 + b"\x95" + b"\xff" * 8 + b"}.", "claims .* bytes, where"),
    "negative length": (P + b"T\xff\xff\xff\xffab.", "a negative length"),
    "negative integer length": (P + b"\x8b\xff\xff\xff\xffab.", "a negative length"),
    "integer of 100 KB": (
        P + b"\x8b" + (10**5).to_bytes(4, "little") + bytes(10**5) + b".",
        "an integer of 100,000 bytes",
    ),
    "integer of many digits": (P + b"L" + b"9" * 900 + b"\n" * 0 + b"9" * 10**6 + b"L\n.", "has no end"),
    "memo that is not there": (P + b"j\xff\xff\xff\x7f.", "asks for the object 2147483647"),
    "list for a dictionary": (P + b"]" + text("a") + b"Ns.", "makes no sense"),
    "list as a key": (P + b"}]Ns.", "is a key of a dictionary"),
    "nested tuple as a key": (P + b"})\x85\x85Ns.", "is a key of a dictionary"),
    "key of 2**61": (P + b"}" + number(2**61) + b"Ns.", "is a key of a dictionary"),
    "odd items": (P + b"}(" + text("a") + b"u.", "a key without a value"),
    "append to text": (P + text("a") + b"Na.", "makes no sense"),
    "call of a text": (P + text("a") + b")R.", "a call of 'a'"),
    "call with a list": (P + named("a", "b") + b"]R.", r"a call with \[\]"),
    "a state for a number": (P + b"K\x01}b.", "a state for 1"),
    "a class called a number": (P4 + b"K\x01K\x02\x93.", r"a class called \(1, 2\)"),
    "a class of control characters": (P + b"ca\x01\nb\n.", "it names a class"),
    "a long name": (P + b"c" + b"a" * 5000 + b"\nb\n.", "has no end"),
    "out of band": (b"\x80\x05\x97.", "lie outside of the pickle"),
    "bytes of a number": (P + call("builtins", "bytes", number(10**12)) + b".", "bytes of 1000000000000"),
    "bytearray of a number": (P + call("builtins", "bytearray", number(10**12)) + b".", "bytes of 1000000000000"),
    "bytes through a codec": (P + call("_codecs", "encode", text("a"), text("bz2")) + b".", "in the encoding 'bz2'"),
    "array of exabytes": (
        P
        + call("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), sizes(0), b"U\x01b")
        + b"("
        + number(1)
        + sizes(2**60)
        + call("numpy", "dtype", text("f4"), b"\x89", b"\x88")
        + b"("
        + number(3)
        + text("<")
        + b"NNN"
        + number(-1)
        + number(-1)
        + number(0)
        + b"tb"
        + b"\x89U\x04abcdtb.",
        "claims another size than its 4 bytes",
    ),
    "byte after byte of MARK": (P + b"(" * (1 << 20), "far more memory|ends in the middle"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_said_to_be(name: str) -> None:
    data, message = BROKEN[name]
    with pytest.raises(ModelFileError, match=message):
        read_torch(torch_zip(Path("a.pt"), data))


def test_deep_content_is_refused_and_long_content_is_not() -> None:
    with pytest.raises(UnsafeFileError, match="nested more than 500 deep"):
        read_torch(torch_zip(Path("a.pt"), P + b")" + b"\x85" * 10**5 + b"."))
    with pytest.raises(UnsafeFileError, match="nested more than 500 deep"):
        read_torch(torch_zip(Path("a.pt"), P + b"]" * 10**4 + b"a" * (10**4 - 1) + b"."))
    calls = b")"
    for _ in range(400):
        calls = (
            named("torch._tensor", "_rebuild_from_type_v2")
            + b"("
            + named("torch._tensor", "_rebuild_from_type_v2")
            + b"N"
            + calls
            + b"tt"[:1]
        )
    with pytest.raises(ModelFileError):
        read_torch(torch_zip(Path("b.pt"), P + calls + b"R."))
    items = b"".join(number(n) for n in range(10**5))
    assert len(read_torch(torch_zip(Path("c.pt"), P + b"](" + items + b"e.")).content) == 10**5


def test_sharing_does_not_explode() -> None:
    """Sixty lists, each twice in the next: written out they would be 2**60."""
    laughs = b"](K\x01K\x02eq\x00"
    for n in range(60):
        laughs += b"0](" + (b"h" + bytes([n])) * 2 + b"eq" + bytes([n + 1])
    file = read_torch(torch_zip(Path("a.pt"), P + b"}(" + text("config") + laughs + text("w") + tensor() + b"u."))
    assert list(file.state) == [] and len(file.content["config"]) == 2


def _module(children: bytes) -> bytes:
    entries = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}" + children
    return named("a", "B") + b")\x81}(" + entries + b"ub"


def test_modules_that_never_end_are_refused() -> None:
    path = torch_zip(Path("a.pt"), P + _module(b"")[:-2] + b"ub.")
    assert module_tree(read_torch(path).content) == [("", "a.B", {})]
    chain = _module(b"") + b"q\x00"
    for n in range(40):
        chain = (
            chain
            + b"0"
            + _module(b"(" + text("a") + b"h" + bytes([n]) + text("b") + b"h" + bytes([n]) + b"u")
            + b"q"
            + bytes([n + 1])
        )
    with pytest.raises(UnsafeFileError, match="contain themselves or share one another"):
        read_torch(torch_zip(Path("b.pt"), P + chain + b"."))
    itself = Inert("a.B")
    itself.state = {"_parameters": {}, "_buffers": {}, "_modules": {"x": itself}}
    for read in (module_tree, state_dict_in):
        with pytest.raises(UnsafeFileError, match="contain themselves"):
            read(itself)


def test_keys_that_collide_are_refused_at_once() -> None:
    """A million of them would take hours; the test's own time limit is two minutes."""
    multiples = b"".join(number((n + 1) * (2**61 - 1) // 8 * 8) + b"N" for n in range(3))
    with pytest.raises(UnsafeFileError, match="is a key of a dictionary or set"):
        read_torch(torch_zip(Path("a.pt"), P + b"}(" + multiples + b"u."))
    tuples = b"".join(b"(" + number(n) + number(-n) + b"tN" for n in range(3000))
    with pytest.raises(UnsafeFileError, match="more than 2000 tuples are keys"):
        read_torch(torch_zip(Path("b.pt"), P + b"}(" + tuples + b"u."))
    spread = b"".join(number(n << 40) + b"N" for n in range(20000))
    assert len(read_torch(torch_zip(Path("c.pt"), P + b"}(" + spread + b"u.")).content) == 20000
    doubled = b")" + b"2\x86" * 60
    with pytest.raises(UnsafeFileError, match="is a key of a dictionary"):
        read_torch(torch_zip(Path("d.pt"), P + b"}" + doubled + b"Ns."))


def test_metadata_of_a_state_dict_is_only_versions() -> None:
    data = call("collections", "OrderedDict") + b"}(" + text("_metadata") + b"}(" + text("") + b"}(" + text("version")
    data += text("x") + text("assign") + b"\x88uK\x01Nu" + text("items") + b"Nub"
    content = read_torch(torch_zip(Path("a.pt"), P + data + b".")).content
    assert content._metadata == {"": {"assign": True}} and not list(content.items())


# -------------------------------------------------------------------------------------------------------- in any case

_CHILD = """
import resource, sys, torch
from relume.errors import ModelFileError
from relume.models.pickles import read_torch
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (150 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        read_torch(path)
    except ModelFileError as error:
        print(type(error).__name__, str(error)[:300])
    else:
        print("read")
print("done")
"""


_MEGABYTE = b"\x8e" + (1 << 20).to_bytes(8, "little") + bytes(1 << 20) + b"q\x000"
_COPIERS: dict[str, tuple[bytes, bytes]] = {
    "bytearray": (_MEGABYTE, call("builtins", "bytearray", b"h\x00")),
    "encode": (text("x" * (1 << 20)) + b"q\x000", call("_codecs", "encode", b"h\x00", text("latin1"))),
    "list": (b"(" + b"N" * (1 << 18) + b"tq\x000", call("builtins", "list", b"h\x00")),
    "set": (b"](" + b"K\x01" * (1 << 17) + b"eq\x000", call("builtins", "set", b"h\x00")),
    "new": (b"(" + named("a", "B") + b"N" * (1 << 18) + b"tq\x000", named("copyreg", "__newobj__") + b"h\x00R"),
    "array": (
        _MEGABYTE + call("numpy", "dtype", text("u1")) + b"q\x010",
        call("numpy._core.numeric", "_frombuffer", b"h\x00", b"h\x01", sizes(1 << 20), text("C")),
    ),
    "dtype": (
        tensor(size=(4, 10**6), stride=(1, 0)) + b"q\x000" + named("torch", "complex128") + b"q\x010",
        call("torch._utils", "_rebuild_device_tensor_from_cpu_tensor", b"h\x00", b"h\x01", text("cpu"), b"\x89"),
    ),
    "nested file": (_nested_storage(1 << 20) + b"q\x000", call("torch.storage", "_load_from_bytes", b"h\x00") + b"0"),
}


def _copied(name: str) -> bytes:
    made, copied = _COPIERS[name]
    return made + b"(" + copied * 3000


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_memory_stays_in_proportion() -> None:
    """150 MB of address space for files that claim up to exabytes, or are nothing but instructions that make objects."""
    many = {
        "dictionaries": b"(" + b"}" * 700_000,
        "sets": P4 + b"(" + b"\x8f" * 700_000,
        "marks": b"(" * 700_000,
        "memos": P4 + b"N" + b"\x94" * 700_000,
        "tuples": b")" + b"\x85" * 700_000,
        "objects": named("a", "B") + b"q\x000" + b"(" + b"h\x00)\x81" * 200_000,
        "tensors": tensor() + b"0" + b"(" + (tensor(size=(1,)) * 3_000),
        "copies": text("x" * 1000) + b"q\x000(" + b"h\x00" * 700_000,
        **{f"copies by {name}": _copied(name) for name in _COPIERS},
        "keys": b"}(" + b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(700_000)) + b"u",
    }
    paths = [torch_zip(Path(f"{name}.pt"), P + data) for name, data in many.items()]
    for name, (data, _) in (LIES | BROKEN).items():
        paths.append(torch_zip(Path(f"{len(paths)} {name.replace('/', ' ')}.pt"), data))
    for name, (data, keys, storages, _) in OLD_LIES.items():
        paths.append(torch_legacy(Path(f"old {name}.pt"), data, keys, storages))
    source = str(Path(torch.__file__).parent.parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, source]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_CHILD), *map(str, paths)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=100,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[-1] == "done", done.stderr[-2000:]
    assert len(lines) == len(paths) + 1 and "read" not in lines and "MemoryError" not in done.stdout, done.stdout


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.again = self.layer
        self.register_buffer("seen", torch.zeros(2))
        self.notes = {"a": (1, 2.5), "b": {"c"}}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[bytes], Path]:
    """Real files of all formats."""
    folder = tmp_path_factory.mktemp("real")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _Net()
        for number, (content, zipped, protocol) in enumerate(
            (content, zipped, protocol)
            for content in (model.state_dict(), {"model": model, "epoch": 1})
            for zipped in (True, False)
            for protocol in (2, 4)
        ):
            torch.save(
                content, folder / f"{number}.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol
            )
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), folder / "script.pt")
    return [path.read_bytes() for path in sorted(folder.glob("*.pt"))], folder / "mutated"


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_file_gives_only_relumes_errors(data: st.DataObject, real: tuple[list[bytes], Path]) -> None:
    wholes, path = real
    changed = bytearray(data.draw(st.sampled_from(wholes)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(changed) - 1))
        if data.draw(st.booleans()):
            changed[at] = data.draw(st.integers(0, 255))
        else:
            changed[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(bytes(changed))
    _only_relumes_errors(path)


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_changed_pickle_in_a_whole_archive_gives_only_relumes_errors(
    data: st.DataObject, real: tuple[list[bytes], Path]
) -> None:
    """The checksum would otherwise find most changes."""
    pieces = [*_pickles(), *(data for data, _ in (CODE | LIES | BROKEN).values())]
    changed = bytearray(pieces[data.draw(st.integers(0, len(pieces) - 1))][:5000]) or bytearray(b".")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(changed)))
        changed[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2)
            | st.sampled_from([bytes([code]) for code in b"R\x81b(t}u]ae\x85\x86\x87h\x00q\x01Q\x92\x93N02.scoi"])
        )
    _only_relumes_errors(torch_zip(real[1], bytes(changed)))


@given(data=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_only_relumes_errors(data: bytes, real: tuple[list[bytes], Path]) -> None:
    for start in (b"", P, MAGIC, b"PK\x03\x04"):
        real[1].write_bytes(start + data)
        _only_relumes_errors(real[1])
    _only_relumes_errors(torch_zip(real[1], P + data + b"."))


@functools.cache
def _pickles() -> list[bytes]:
    buffer = io.BytesIO()
    torch.save({"model": _Net(), "epoch": 1}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        whole = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    return [whole, state(tensor()), pickle.dumps(_Net().state_dict(), 2)]


def _only_relumes_errors(path: Path) -> None:
    for refuse in (True, False):
        try:
            file = read_torch(path, refuse=refuse)
            for value in file.state.values():
                value.sum()
            module_tree(file.content)
            is_torch_file(path)
        except ModelFileError:
            pass
    assert not Path(CANARY).exists()
