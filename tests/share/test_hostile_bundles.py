"""Whatever a bundle is made of: nothing in it runs, nothing is written outside, and what is wrong is named."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_bundles import packed, recipe
from torch import nn

import relume
from relume.errors import BundleError, ModelFileError, RecipeError, RelumeError, UnsafeFileError
from relume.models.exported import graph_files
from relume.models.tensorfile import tensorfile_parts
from relume.page import text_of
from relume.share.archive import write_archive
from relume.share.bundle import Bundle
from relume.share.documents import MODEL, WEIGHTS, Model
from relume.share.looking import look
from relume.share.manifest import Manifest, Member
from relume.share.unpacking import unpack

CANARY = "RELUME_TEST_CANARY"
STATE = nn.Linear(2, 3).state_dict()


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in; what is beside it stays as it is, and no planted code says that it ran."""
    monkeypatch.delenv(CANARY, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "precious.txt").write_text("mine")
    monkeypatch.chdir(work)
    yield work
    assert CANARY not in os.environ
    assert {one.name for one in tmp_path.iterdir()} == {"work", "precious.txt"}
    assert (tmp_path / "precious.txt").read_text() == "mine"


def refused(path: Path, message: str, kind: type[RelumeError] = ModelFileError) -> None:
    """By everything that opens bundles; and nothing is unpacked."""
    before = {one.name for one in Path().iterdir()}
    readers: list[Callable[[], object]] = [
        lambda: relume.load_model(path),
        lambda: relume.load_model(path, trust=True),
        lambda: relume.read_state(path),
        lambda: relume.ImageClassifier.load(path),
        lambda: unpack(path, "unpacked"),
        lambda: look(Bundle.open(path)),
    ]
    for reader in readers:
        with pytest.raises(kind, match=message):
            reader()
    assert {one.name for one in Path().iterdir()} == before


class Planted:
    """What a pickle that runs code is made of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, (CANARY, "1")


def planted(statement: str = "1") -> str:
    return f"__import__('os').environ.__setitem__('{CANARY}', '{statement}')"


# ------------------------------------------------------------------------------------------------------- changed bytes


@pytest.mark.parametrize("tries", [40, pytest.param(4000, marks=pytest.mark.long)])
def test_any_changed_byte_is_found_before_anything_is_used(tries: int) -> None:
    path = packed(Path("a.relume"), document=recipe("torch.nn:Linear", 2, 3), state=STATE, code={"net.py": planted()})
    whole, rng = path.read_bytes(), random.Random(3)
    for _ in range(tries):
        changed, place = bytearray(whole), rng.randrange(len(whole))
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            relume.load_model(path, trust=True)


@pytest.mark.parametrize("tries", [40, pytest.param(2000, marks=pytest.mark.long)])
def test_cut_short_grown_or_rearranged_it_is_found(tries: int) -> None:
    path = packed(Path("a.relume"), document=recipe("torch.nn:Linear", 2, 3), state=STATE)
    whole, rng = path.read_bytes(), random.Random(4)
    for number in range(tries):
        a, b = sorted(rng.sample(range(len(whole)), 2))
        changed = (
            whole[:a],
            whole + whole[a:b],
            whole[:a] + whole[b:],
            whole[:a] + whole[b:] + whole[a:b],
            whole[:a] + bytes(b - a) + whole[b:],
        )[number % 5]
        if changed != whole:
            path.write_bytes(changed)
            with pytest.raises(ModelFileError):
                relume.load_model(path)


def test_two_files_that_changed_places_are_named() -> None:
    path = packed(Path("a.relume"), state=STATE, files={"a.txt": b"one", "b.txt": b"two"})
    bundle, whole = Bundle(path), bytearray(path.read_bytes())
    one, two = (bundle.place(name).offset for name in ("a.txt", "b.txt"))
    whole[one : one + 3], whole[two : two + 3] = whole[two : two + 3], whole[one : one + 3]
    path.write_bytes(whole)
    refused(path, r"a.txt was changed: its digest differs; b.txt was changed")


def test_a_claim_or_weights_that_were_edited_are_named() -> None:
    files = {"metrics.json": b'{"claims": [{"name": "accuracy", "value": 0.81, "evaluation": 0}]}'}
    path = packed(Path("a.relume"), document=recipe("torch.nn:Linear", 2, 3), state=STATE, files=files)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"value": 0.81', b'"value": 0.91'))
    refused(path, "metrics.json was changed")
    weight = STATE["weight"].numpy().tobytes()
    path.write_bytes(whole.replace(weight, (STATE["weight"] + 1).numpy().tobytes()))
    refused(path, "model.safetensors was changed")


# -------------------------------------------------------------------------------------------------- archives by others


def foreign(path: Path, names: list[str], content: bytes = b"x", **options: Any) -> Path:
    """A zip that another tool made, with a manifest that lists what it holds."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), content)
        archive.writestr("manifest.json", manifest(names, content))
    return path


def manifest(names: list[str], content: bytes = b"x", size: int | None = None) -> bytes:
    """A manifest with a digest that is right, whatever the names."""
    from blake3 import blake3

    from relume.share import manifest as module

    members = [
        Member(
            path=name, size_bytes=len(content) if size is None else size, blake3=blake3(content).hexdigest(), crc32=0
        )
        for name in sorted(names)
    ]
    made = Manifest.model_construct(format=1, kind="relume bundle", name="x", relume="0", members=members, digest="")
    return made.model_copy(update={"digest": module._digest(made.model_dump())}).text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../precious.txt", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("code/../../precious.txt", "leads out of the archive"),
        ("C:/windows/system.ini", "leads out of the archive"),
        ("..\\precious.txt", "backslash"),
        ("a\nb", "control character"),
        ("\x1b[2J.txt", "control character"),
        ("code//a.py", "leads out of the archive"),
        ("./a", "leads out of the archive"),
        ("aux.txt", "name of a device on Windows"),
        ("trailing. ", "leads out of the bundle"),
        ("bad\u202ename.py", "control character"),
        ("x" * 500, "very long"),
        (".bashrc", "is hidden"),
        ("code/.git/config", "git's own"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str, message: str) -> None:
    refused(foreign(Path("a.relume"), [name]), message, UnsafeFileError)


@pytest.mark.parametrize("pair", [("a.txt", "A.txt"), ("gr\u00fcn", "gru\u0308n"), ("code", "code/a.py")])
def test_names_that_are_one_on_other_systems_are_refused(pair: tuple[str, str]) -> None:
    refused(foreign(Path("a.relume"), list(pair)), "twice|by case only|as a file and as a folder", UnsafeFileError)


def test_the_same_name_twice_is_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        foreign(Path("a.relume"), ["a.txt", "a.txt"])
    refused(Path("a.relume"), "is in it twice", UnsafeFileError)


def test_links_devices_and_pipes_in_an_archive_are_refused() -> None:
    for kind in (0o120777, 0o020666, 0o010666):
        with zipfile.ZipFile("a.relume", "w") as archive:
            info = zipfile.ZipInfo("README.md")
            info.create_system, info.external_attr = 3, kind << 16
            archive.writestr(info, "/etc/passwd")
            archive.writestr("manifest.json", manifest(["README.md"], b"/etc/passwd"))
        refused(Path("a.relume"), "is a link or another special file", UnsafeFileError)


def test_links_and_pipes_in_a_folder_are_refused() -> None:
    folder = unpack(packed(Path("a.relume"), state=STATE, code={"a.py": ""}), "folder")
    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    for make in (
        lambda place: place.symlink_to("/etc/passwd"),
        lambda place: place.symlink_to("."),
        lambda place: place.symlink_to(elsewhere.absolute()),
        os.mkfifo,
    ):
        place = folder / "code" / "more"
        make(place)
        refused(folder, "is a link or no file", UnsafeFileError)
        place.unlink()
    (folder / "manifest.json").rename(elsewhere / "manifest.json")
    (folder / "manifest.json").symlink_to((elsewhere / "manifest.json").absolute())
    with pytest.raises(BundleError, match="a folder without a manifest.json"):
        Bundle(folder)


def test_entries_that_overlap_are_refused() -> None:
    path = foreign(Path("a.relume"), ["a.txt", "b.txt"])
    whole = bytearray(path.read_bytes())
    second = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 4)
    whole[second + 42 : second + 46] = bytes(4)  # where the first begins
    path.write_bytes(whole)
    refused(path, "contradicts the directory|overlaps", UnsafeFileError)


def test_compression_bombs_are_refused_without_being_inflated() -> None:
    path = foreign(Path("a.relume"), [])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", bytes(80 << 20))
        archive.writestr("manifest.json", manifest(["bomb.txt"]))
    assert path.stat().st_size < 1 << 20
    refused(path, "compression bomb", UnsafeFileError)


def test_a_manifest_that_is_compressed_or_huge_is_refused() -> None:
    with zipfile.ZipFile("a.relume", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (60 << 20))
    refused(Path("a.relume"), "bytes, where at most")


def test_sizes_that_are_not_there_are_refused() -> None:
    path = foreign(Path("a.relume"), ["a.txt"])
    whole = bytearray(path.read_bytes())
    entry = whole.index(b"PK\x01\x02")
    struct.pack_into("<2L", whole, entry + 20, 1 << 31, 1 << 31)
    path.write_bytes(whole)
    refused(path, "contradicts the directory", UnsafeFileError)
    with zipfile.ZipFile("b.relume", "w") as archive:
        archive.writestr("manifest.json", manifest(["weights.bin"], size=1 << 61))
    refused(Path("b.relume"), "weights.bin is missing")


def test_millions_of_entries_are_refused() -> None:
    with zipfile.ZipFile("a.relume", "w") as archive:
        archive.writestr("manifest.json", manifest([str(number) for number in range(20_001)]))
    with pytest.raises(UnsafeFileError, match="20,001 files in a bundle; at most 20,000"):
        Bundle(Path("a.relume"))
    whole = bytearray(Path("a.relume").read_bytes())
    struct.pack_into("<2H", whole, len(whole) - 14, 60_000, 60_000)
    Path("a.relume").write_bytes(whole)
    with pytest.raises(BundleError, match="directory"):
        Bundle(Path("a.relume"))


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        b'{"format": ' + b"9" * 100_000 + b"}",
        b'{"format": 1e999999999}',
        b'{"format": 1, "format": 2}',
        b"\xff\xfe{}",
        b"null",
        b"",
        b'{"kind": "relume bundle", "members": [{}]}',
    ],
)
def test_a_manifest_that_is_no_manifest_is_refused(text: bytes) -> None:
    with zipfile.ZipFile("a.relume", "w") as archive:
        archive.writestr("manifest.json", text)
    refused(Path("a.relume"), "manifest.json (is damaged|is not what was packed|has the format)")


def test_a_manifest_of_a_newer_format_says_so() -> None:
    with zipfile.ZipFile("a.relume", "w") as archive:
        archive.writestr("manifest.json", '{"format": 2}')
    refused(Path("a.relume"), "a newer one packed it. Update relume")


# -------------------------------------------------------------------------------------------- documents that are hostile


def raw(path: Path, **files: bytes) -> Path:
    """A bundle whose digests are right, and whose files are anything."""
    named = {"config": MODEL, "weights": WEIGHTS}
    contents = {
        MODEL: Model(document=recipe("torch.nn:Linear", 2, 3)).model_dump_json().encode(),
        WEIGHTS: b"".join(bytes(piece) for piece in tensorfile_parts(STATE)),
    } | {named.get(name, name): content for name, content in files.items()}
    write_archive(path, "raw", {name: (lambda text=text: [text]) for name, text in contents.items()}, "0")
    return path


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 1_000_000,
        b'{"document": ' + b'{"a":' * 500_000,
        b'{"parameters": ' + b"9" * 1_000_000 + b"}",
        b'{"parameters": 1e400}',
        b'{"format": 7}',
        b'{"document": [1]}',
        b'{"id2label": 3}',
        b'{"a": 1, "a": 2}',
        b"\x80\x04}q\x00.",
    ],
)
def test_a_config_that_is_none_is_refused(text: bytes) -> None:
    path = raw(Path("a.relume"), config=text)
    for reader in (relume.load_model, relume.read_state, relume.ImageClassifier.load, lambda at: look(Bundle.open(at))):
        with pytest.raises(BundleError, match="config.json is not understood"):
            reader(path)


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"\0" * 8,
        struct.pack("<Q", 1 << 60) + b"{}",
        header(a={"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}),
        header(a={"dtype": "F32", "shape": [10**30], "data_offsets": [0, 0]}),
        header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}),
        header(a={"dtype": "F32", "shape": [1] * 5000, "data_offsets": [0, 4]}) + b"0000",
        header(a={"dtype": "OBJ", "shape": [1], "data_offsets": [0, 4]}) + b"0000",
        header(
            a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            b={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        )
        + b"0000",
        header(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}) + b"00000000",
        struct.pack("<Q", 1_000_000) + b"[" * 1_000_000,
        pickle.dumps(Planted()),
    ],
)
def test_weights_of_absurd_shapes_are_refused(weights: bytes) -> None:
    path = raw(Path("a.relume"), weights=weights)
    for reader in (relume.load_model, relume.read_state, relume.ImageClassifier.load, relume.inspect_file):
        with pytest.raises(ModelFileError):
            reader(path)


@pytest.mark.parametrize(
    ("builder", "args", "message"),
    [
        ("os:system", ["touch ran"], "is neither a class of modules nor a registered builder"),
        ("builtins:eval", [planted()], "is neither a class of modules nor a registered builder"),
        ("subprocess:Popen", [["touch", "ran"]], "is neither a class of modules nor a registered builder"),
        ("torch.hub:load", ["evil/repository", "net"], "is refused: of these libraries, only"),
        ("torch:load", ["x.pt"], "is refused: of these libraries, only"),
        ("torch.nn.modules.module:Module.__class__", [], "names no builder"),
        ("os.path:os.system", ["touch ran"], "names no builder"),
        ("antigravity:x", [], "is not imported, and a file may not import it"),
        ("this:s", [], "is not imported, and a file may not import it"),
        ("../../evil:Net", [], "names no builder"),
        ("torch.nn:Linear", [10**12, 10**12], "is not followed"),
        (
            "torch.nn:Linear",
            [{"build": {"builder": "os:system", "args": ["touch ran"], "kwargs": {}}}, 1],
            "os:system is",
        ),
        ("torch.nn:Linear", [2, 3, True, "cuda:0"], "a recipe does not choose the device"),
    ],
)
def test_recipes_that_name_what_is_no_builder_are_refused(builder: str, args: list[Any], message: str) -> None:
    path = packed(Path("a.relume"), document=recipe(builder, *args), state=STATE)
    with pytest.raises(RecipeError, match=message):
        relume.load_model(path)
    look(Bundle.open(path))
    assert not Path("ran").exists()


@pytest.mark.parametrize("depth", [100, 230, 400, 990, 100_000])
def test_a_recipe_that_is_nested_deep_is_refused(depth: int) -> None:
    text = b'{"document": {"format": 1, "recipe": {"builder": "torch.nn:Linear", "kwargs": {}, "args": ' + b"[" * depth
    path = raw(Path("a.relume"), config=text + b"]" * depth + b"}}}")
    for reader in (relume.load_model, relume.read_state, relume.inspect_file, lambda at: look(Bundle.open(at))):
        try:
            reader(path)
        except ModelFileError:
            continue
        assert reader is not relume.load_model


def test_code_without_trust_never_runs_whatever_names_it() -> None:
    code = {"net.py": planted(), "__init__.py": planted(), "train.py": planted(), "sitecustomize.py": planted()}
    path = packed(
        Path("a.relume"), document=recipe("net:Net"), state=STATE, code=code, script="train.py", needs_code="net.Net"
    )
    with pytest.raises(RecipeError, match="It was not run"):
        relume.load_model(path)
    look(Bundle.open(path))
    folder = unpack(path, "unpacked")
    with pytest.raises(RecipeError, match="It was not run"):
        relume.load_model(folder)


def test_pickles_are_carried_and_never_opened() -> None:
    torch_file = io.BytesIO()
    torch.save(Planted(), torch_file)
    bad = pickle.dumps(Planted())
    files = {
        "extra.pkl": bad,
        "pytorch_model.bin": bad,
        "model.pt": torch_file.getvalue(),
        "examples/examples.pkl": bad,
    }
    path = packed(Path("a.relume"), document=recipe("torch.nn:Linear", 2, 3), state=STATE, files=files)
    assert isinstance(relume.load_model(path), nn.Linear)
    look(Bundle.open(path))
    folder = unpack(path, "unpacked")
    assert isinstance(relume.load_model(folder), nn.Linear) and (folder / "extra.pkl").read_bytes() == bad
    with pytest.raises(UnsafeFileError):
        relume.read_state(folder / "model.pt")


def test_expressions_and_operators_in_a_graph_are_not_run() -> None:
    net = nn.Linear(2, 3).eval()
    files = graph_files(net, torch.zeros(2, 2))
    text = files["graph/program.json"].decode()
    assert "torch.ops.aten" in text
    changed = [
        text.replace("torch.ops.aten.linear", "os.system").replace("torch.ops.aten.addmm", "os.system"),
        text.replace("torch.ops.aten", "torch.ops.evil"),
        text.replace('"s', '"' + planted().replace('"', "'") + " or s"),
        text.replace('"target":"', '"target":"builtins.eval'),
    ]
    for number, other in enumerate(changed):
        assert other != text
        path = packed(
            Path(f"{number}.relume"),
            document=recipe("theirs:Net"),
            state=net.state_dict(),
            files={**files, "graph/program.json": other.encode()},
        )
        with pytest.raises(ModelFileError):
            relume.load_model(path)(torch.zeros(2, 2))


# ---------------------------------------------------------------------------------------------------- what people read


def test_what_a_terminal_or_a_page_would_obey_is_shown_as_text() -> None:
    bad = "\x1b]0;owned\x07\x1b[2J<script>alert(1)</script>\u202e[bold red]x[/]"
    facts = {
        "run.json": {"title": bad, "authors": [bad], "licence": bad, "command": [bad], "citation": bad, "name": bad},
        "metrics.json": {
            "claims": [{"name": bad, "value": 1e308, "evaluation": 9}, {"name": "b", "value": 0.5, "evaluation": -1}]
        },
        "data.json": {"sets": [{"role": bad, "name": bad, "licence": bad}]},
        "environment.json": {"python": bad, "packages": {"torch": bad}},
        "lineage.json": {"ancestors": [{"name": bad, "licence": bad}]},
        "preprocessor_config.json": {
            "kind": "image",
            "settings": {"size": bad, "channels": [1]},
            "classes": [bad, bad],
        },
    }
    files = {name: json.dumps(one).encode() for name, one in facts.items()} | {"README.md": bad.encode()}
    path = packed(Path("a.relume"), document=recipe(bad), state=STATE, files=files, architectures=[bad])
    found = look(Bundle.open(path))
    text, page = text_of(found.page(), 80), found._repr_html_()
    assert not set(text) & {"\x1b", "\x07", "\u202e"} and "[bold red]" in text
    assert "<script>" not in page and "&lt;script&gt;" in page and "\u202e" not in page
    assert json.loads(json.dumps(found.as_json()))["is_verified"]
    with pytest.raises(RecipeError) as caught:
        relume.load_model(path)
    assert not set(str(caught.value)) & {"\x1b", "\x07", "\u202e"}


# --------------------------------------------------------------------------------------------------- what is no bundle


def test_devices_pipes_and_folders_are_no_bundles() -> None:
    os.mkfifo("pipe.relume")
    Path("folder.relume").mkdir()
    Path("zero.relume").symlink_to("/dev/zero")
    Path("empty.relume").write_bytes(b"")
    Path("text.relume").write_text("hello")
    Path("loop.relume").symlink_to("loop.relume")
    for name in ("pipe", "zero", "empty", "text", "folder", "loop", "none"):
        place = Path(f"{name}.relume")
        with pytest.raises(ModelFileError):
            Bundle(place)
        with pytest.raises(RelumeError):
            relume.load_model(place)
        with pytest.raises(RelumeError):
            unpack(place, "out")
    assert not Path("out").exists()


def test_readers_and_writers_at_once_never_see_half_a_bundle() -> None:
    """A bundle is replaced by a rename while others read it: each sees the one or the other, or says that it changed."""
    one = packed(Path("one.relume"), document=recipe("torch.nn:Linear", 2, 3), state=STATE)
    two = packed(
        Path("two.relume"), document=recipe("torch.nn:Linear", 2, 3), state={n: v + 1 for n, v in STATE.items()}
    )
    contents, place, done = [one.read_bytes(), two.read_bytes()], Path("a.relume"), threading.Event()
    place.write_bytes(contents[0])

    def replace() -> None:
        number = 0
        while not done.is_set():
            number += 1
            Path("next").write_bytes(contents[number % 2])
            Path("next").replace(place)

    writer = threading.Thread(target=replace)
    writer.start()
    seen = 0
    try:
        for _ in range(60):
            try:
                weight = relume.load_model(place, mmap=False).weight
            except BundleError as error:
                assert "while it was open" in str(error)
                continue
            seen += 1
            assert torch.equal(weight, STATE["weight"]) or torch.equal(weight, STATE["weight"] + 1)
    finally:
        done.set()
        writer.join()
    assert seen
