"""The Hugging Face Hub, by its own client, against a server on loopback that has its routes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchange_servers import serving
from hub_server import TOKEN, Hub

from relume.errors import BundleError, ExchangeError, UnsafeFileError
from relume.share.bundle import Bundle
from relume.share.exchange import pull, push

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")  # in the client's own calls


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    import huggingface_hub.constants as constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(server):
        yield server


def test_there_and_back(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    pushed = push(bundle, "hf://me/fashion")
    files = hub.repositories["me/fashion"].commits[hub.repositories["me/fashion"].branches["main"]]
    assert set(files) == {"manifest.json", ".gitattributes", *Bundle(bundle).members()}
    assert files["model.safetensors"] == Bundle(bundle).read("model.safetensors")
    assert pushed.place == "hf://me/fashion" and pushed.sent_bytes > 4_000_000
    pulled = pull("hf://me/fashion", tmp_path / "back.relume")
    assert pulled.path.read_bytes() == bundle.read_bytes() and pulled.digest == pushed.digest
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".pull")]
    print(f"up {sum(hub.up.values()):,} bytes, down {sum(hub.down.values()):,}, bundle {bundle.stat().st_size:,}")


def test_plain_code_reads_its_files(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    import huggingface_hub
    from safetensors.torch import load_file

    push(bundle, "hf://me/fashion")
    config = json.loads(
        Path(huggingface_hub.hf_hub_download("me/fashion", "config.json", endpoint=hub.url)).read_text()
    )
    state = load_file(huggingface_hub.hf_hub_download("me/fashion", "model.safetensors", endpoint=hub.url))
    assert config["model_type"] == "relume" and state["head.weight"].shape == (10, 512)


def test_only_what_changed_travels(hub: Hub, make, tmp_path: Path) -> None:
    push(make("fashion", 10), "hf://me/fashion")
    hub.reset()
    assert push(make("fashion", 10), "hf://me/fashion").sent_bytes == 0 and not hub.up
    assert len(hub.repositories["me/fashion"].commits) == 2, "no empty commit"
    import zipfile

    from relume.share.archive import file_parts, write_archive

    with zipfile.ZipFile(make("fashion", 10)) as archive:
        archive.extractall(tmp_path / "changed")
    (tmp_path / "changed" / "README.md").write_text("# Another card\n")
    (tmp_path / "changed" / "code" / "train.py").unlink()
    names = [
        path.relative_to(tmp_path / "changed").as_posix()
        for path in (tmp_path / "changed").rglob("*.*")
        if path.is_file()
    ]
    contents = {name: file_parts(tmp_path / "changed" / name) for name in names if name != "manifest.json"}
    changed = tmp_path / "changed.relume"
    write_archive(changed, "fashion", contents, "0.1.0")
    pull("hf://me/fashion", tmp_path / "mine.relume")
    hub.reset()
    pushed = push(changed, "hf://me/fashion")
    print(f"another card: {sum(hub.up.values()):,} bytes up, {pushed.there_bytes:,} were there")
    assert sum(hub.up.values()) == pushed.sent_bytes < 3000
    files = hub.repositories["me/fashion"].commits[hub.repositories["me/fashion"].branches["main"]]
    assert "code/train.py" not in files and ".gitattributes" in files
    pulled = pull("hf://me/fashion", tmp_path / "mine.relume")
    assert pulled.path.read_bytes() == changed.read_bytes() and sum(hub.down.values()) < 5000


def test_revisions_and_private_repositories(hub: Hub, make, tmp_path: Path, monkeypatch) -> None:
    push(make("a", 10), "hf://me/fashion", private=True)
    push(make("b", 20), "hf://me/fashion@v2")
    assert hub.repositories["me/fashion"].private
    assert pull("hf://me/fashion@v2", tmp_path / "2.relume").path.read_bytes() == make("b", 20).read_bytes()
    sha = hub.repositories["me/fashion"].branches["main"]
    assert pull(f"hf://me/fashion@{sha}", tmp_path / "1.relume").path.read_bytes() == make("a", 10).read_bytes()
    with pytest.raises(ExchangeError, match="there is no such revision"):
        pull("hf://me/fashion@v3", tmp_path)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ExchangeError, match="no such repository, or it is private.*`hf auth login`, or set HF_TOKEN"):
        pull("hf://me/fashion", tmp_path / "3.relume")
    with pytest.raises(ExchangeError, match=r"hf auth login"):
        push(make("a", 10), "hf://me/other")


def test_a_repository_of_something_else_is_left_alone(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    from hub_server import Repository

    hub.repositories["me/book"] = Repository(False)
    hub.repositories["me/book"].commit("main", {"thesis.md": b"years", ".gitattributes": b""})
    with pytest.raises(ExchangeError, match="holds 1 files and is no bundle.*--force"):
        push(bundle, "hf://me/book")
    with pytest.raises(ExchangeError, match="is no bundle: it holds no manifest.json"):
        pull("hf://me/book", tmp_path / "book.relume")
    push(bundle, "hf://me/book", force=True)
    assert pull("hf://me/book", tmp_path / "book.relume").path.read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda files: files.update({"model.safetensors": files["model.safetensors"][:-5]}),
            BundleError,
            "has .* were packed",
        ),
        (lambda files: files.pop("README.md"), BundleError, "README.md is missing"),
        (
            lambda files: files.update({"model.safetensors": b"\1" + files["model.safetensors"][1:]}),
            (BundleError, UnsafeFileError),
            "model.safetensors",
        ),
        (lambda files: files.update({"manifest.json": b"{}"}), BundleError, "damaged"),
        (
            lambda files: files.update({"manifest.json": files["manifest.json"].replace(b"README.md", b"../../x.m")}),
            BundleError,
            "own digest",
        ),
    ],
)
def test_what_was_changed_there_is_refused(hub: Hub, bundle: Path, tmp_path: Path, change, kind, message: str) -> None:
    push(bundle, "hf://me/fashion")
    repository = hub.repositories["me/fashion"]
    files = dict(repository.commits[repository.branches["main"]])
    change(files)
    repository.commit("main", files)
    with pytest.raises(kind, match=message):
        pull("hf://me/fashion", tmp_path / "back.relume")
    assert not (tmp_path / "back.relume").exists()


def test_additional_files_there_are_not_fetched(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    push(bundle, "hf://me/fashion")
    repository = hub.repositories["me/fashion"]
    files = dict(repository.commits[repository.branches["main"]])
    repository.commit("main", {**files, "pytorch_model.bin": b"evil" * 1000, "../up": b"x"})
    assert pull("hf://me/fashion", tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()
    assert "pytorch_model.bin" not in hub.down


def test_a_hub_that_is_not_there(hub: Hub, bundle: Path, monkeypatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(ExchangeError, match=r"pulling hf://me/fashion failed: ConnectError.*HF_ENDPOINT"):
        pull("hf://me/fashion", tmp_path)


def test_the_commands(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    """By HF_ENDPOINT and HF_TOKEN, as a user has them."""
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    for arguments in (
        ["push", str(bundle), "hf://me/fashion", "--private"],
        ["pull", "hf://me/fashion", "-o", "back.relume"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "relume", *arguments],
            env={**os.environ, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("\n") == 1 and not done.stderr, done.stderr
        print(done.stdout)
    assert (tmp_path / "back.relume").read_bytes() == bundle.read_bytes()
    assert hub.repositories["me/fashion"].private
