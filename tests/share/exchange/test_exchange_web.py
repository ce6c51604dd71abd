"""A plain web server is enough to pull from; whatever it does, only the bundle that was pushed is kept."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from exchange_servers import Static, serving

from relume.errors import BundleError, ConfigurationError, ExchangeError
from relume.share.bundle import Bundle
from relume.share.exchange import pull, push
from relume.share.exchange.index import Source
from relume.share.exchange.staging import arrived

PULL = "import sys; from relume.share.exchange import pull; pull(sys.argv[1], sys.argv[2])"


@pytest.mark.parametrize("path", ["models/fashion", "models/fashion.relume", "models/fashion.relume.json"])
def test_a_folder_behind_a_web_server(web: Static, bundle: Path, tmp_path: Path, path: str) -> None:
    push(bundle, web.root / "models")
    pulled = pull(f"{web.url}/{path}", tmp_path / "back.relume")
    assert pulled.path.read_bytes() == bundle.read_bytes()
    objects = sum(count for name, count in web.sent.items() if "objects/" in name)
    assert objects == sum(chunk.size_bytes for chunk in Source(Bundle(bundle)).index.chunks) == pulled.received_bytes


def test_a_bare_file_on_a_web_server(web: Static, bundle: Path, tmp_path: Path) -> None:
    (web.root / "a b.relume").write_bytes(bundle.read_bytes())
    pulled = pull(f"{web.url}/a%20b.relume", tmp_path)
    assert pulled.path == tmp_path / "a b.relume" and pulled.path.read_bytes() == bundle.read_bytes()
    assert pulled.received_bytes == bundle.stat().st_size


def killed_in_the_middle(web: Static, url: str, out: Path, stop_at: int, staged) -> int:
    """Pull in another process, and kill it when it has some of it; returns what it had by then."""
    web.stop_at = stop_at
    process = subprocess.Popen([sys.executable, "-c", PULL, url, str(out)])
    try:
        assert web.stopped.wait(60)
        while not (had := staged()):
            assert process.poll() is None
            web.go_on.wait(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    had = staged()
    assert had and not out.exists()
    print(f"killed after the server had sent {web.total:,} bytes; {had:,} of them were kept")
    web.reset()
    return had


def test_a_killed_pull_goes_on_where_it_was(web: Static, bundle: Path, tmp_path: Path) -> None:
    push(bundle, web.root)
    out, index = tmp_path / "out" / "back.relume", Source(Bundle(bundle)).index

    def staged() -> int:
        path = out.parent / ".back.relume.pull" / f"{index.manifest.digest[:32]}.relume"
        if not path.exists():
            return 0
        content = path.read_bytes()
        chunks = [b"".join(content[o : o + n] for o, n in index.places(c.start, c.size_bytes)) for c in index.chunks]
        return sum(
            chunk.size_bytes if Source(Bundle(bundle)).content(chunk) == data else arrived(data)
            for chunk, data in zip(index.chunks, chunks, strict=True)
        )

    had = killed_in_the_middle(web, f"{web.url}/fashion", out, 2_000_000, staged)
    pulled = pull(f"{web.url}/fashion", out)
    objects = sum(count for name, count in web.sent.items() if "objects/" in name)
    print(f"the second pull: {objects:,} bytes of objects from the server, {pulled.there_bytes:,} were here")
    assert objects == pulled.received_bytes == index.size_bytes - had
    assert any(headers.get("Range") for headers in web.headers), "a partly fetched chunk is gone on with"
    assert out.read_bytes() == bundle.read_bytes()


def test_a_killed_download_of_a_bare_file_goes_on(web: Static, bundle: Path, tmp_path: Path) -> None:
    (web.root / "fashion.relume").write_bytes(bundle.read_bytes())
    out = tmp_path / "back.relume"
    part = tmp_path / ".back.relume.pull" / "file.relume"
    had = killed_in_the_middle(
        web, f"{web.url}/fashion.relume", out, 2_000_000, lambda: part.stat().st_size if part.exists() else 0
    )
    pulled = pull(f"{web.url}/fashion.relume", out)
    print(f"the second pull: {pulled.received_bytes:,} bytes")
    assert pulled.received_bytes == bundle.stat().st_size - had and out.read_bytes() == bundle.read_bytes()


def half(web: Static, bundle: Path, out: Path) -> None:
    """A pull of a bare file that breaks off in its middle."""
    cut = bundle.stat().st_size // 2

    def fault(handler) -> bool:
        content = (web.root / "fashion.relume").read_bytes()
        if not handler.path.endswith(".relume"):
            return False
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= cut:
            handler.close_connection = True
            return True
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        if web.tags:
            handler.send_header("ETag", f'"{(web.root / "fashion.relume").stat().st_mtime_ns}"')
        handler.end_headers()
        handler.wfile.write(content[:cut])
        handler.close_connection = True
        return True

    web.fault = fault
    with pytest.raises(ExchangeError, match=r"Tried 3 times. Call it again later"):
        pull(f"{web.url}/fashion.relume", out)
    web.fault = lambda handler: False
    web.reset()


@pytest.mark.parametrize("tags", [True, False])
def test_two_versions_of_a_file_are_not_glued_together(web: Static, make, tmp_path: Path, tags: bool) -> None:
    web.tags = tags
    old, out = make("fashion", 10, seed=1), tmp_path / "back.relume"
    (web.root / "fashion.relume").write_bytes(old.read_bytes())
    half(web, old, out)
    new = make("fashion", 10, seed=2)
    assert new.stat().st_size == (web.root / "fashion.relume").stat().st_size
    (web.root / "fashion.relume").write_bytes(new.read_bytes())
    assert pull(f"{web.url}/fashion.relume", out).path.read_bytes() == new.read_bytes()


def test_a_server_without_ranges_starts_again(web: Static, bundle: Path, tmp_path: Path) -> None:
    (web.root / "fashion.relume").write_bytes(bundle.read_bytes())
    half(web, bundle, tmp_path / "back.relume")
    web.ranges = False
    pulled = pull(f"{web.url}/fashion.relume", tmp_path / "back.relume")
    assert pulled.received_bytes == bundle.stat().st_size and pulled.there_bytes == 0
    assert pulled.path.read_bytes() == bundle.read_bytes()


def test_chunks_from_a_server_without_ranges_start_again(web: Static, bundle: Path, tmp_path: Path) -> None:
    push(bundle, web.root)
    broken: set[str] = set()

    def fault(handler) -> bool:
        if "objects/" not in handler.path or handler.path in broken:
            return False
        broken.add(handler.path)
        content = (web.root / handler.path.lstrip("/")).read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True
        return True

    for ranges in (False, True):
        broken.clear()
        web.ranges, web.fault = ranges, fault
        pulled = pull(f"{web.url}/fashion", tmp_path / f"{ranges}.relume")
        assert pulled.path.read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, r"the server answers 403 Forbidden.*has a signed address expired\?"),
        (401, r"401 Unauthorized.*USER:PASSWORD"),
        (500, r"500 Internal Server Error.*Tried 3 times"),
        (503, r"503 Service Unavailable.*Tried 3 times"),
        (418, r"the server answers 418"),
    ],
)
def test_what_the_server_answers_is_said(web: Static, tmp_path: Path, status: int, message: str) -> None:
    web.fault = lambda handler: handler.answer(status, b"<html>no</html>") or True
    with pytest.raises(ExchangeError, match=message) as caught:
        pull(f"http://me:geheim@127.0.0.1:{web.server_address[1]}/fashion.relume?sig=verysecret", tmp_path)
    assert "geheim" not in str(caught.value) and "verysecret" not in str(caught.value)


def test_what_passes_is_tried_again(web: Static, bundle: Path, tmp_path: Path) -> None:
    push(bundle, web.root)
    seen: set[str] = set()

    def fault(handler) -> bool:
        if handler.path in seen:
            return False
        seen.add(handler.path)
        handler.answer(503, b"later")
        return True

    web.fault = fault
    assert pull(f"{web.url}/fashion", tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()


def test_nothing_there(web: Static, tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"there is neither fashion.relume nor an index of it at .* \(404\)"):
        pull(f"{web.url}/models/fashion.relume", tmp_path)
    with pytest.raises(ExchangeError, match=r"there is no fashion.relume.json in"):
        pull(f"{web.url}/models/fashion.relume.json", tmp_path)
    with pytest.raises(ConfigurationError, match="give the address of a bundle"):
        pull(web.url, tmp_path)
    with pytest.raises(ConfigurationError, match="names no host"):
        pull("http:///fashion.relume", tmp_path)


def test_no_such_host_and_nobody_who_listens(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"no-such-host.invalid: there is no such host, or no network"):
        pull("http://me:geheim@no-such-host.invalid/fashion.relume", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ExchangeError, match=r"the connection failed.*Connection refused.*Tried 3 times"):
        pull(f"http://127.0.0.1:{port}/fashion.relume", tmp_path)


def test_a_page_is_no_bundle(web: Static, tmp_path: Path) -> None:
    (web.root / "fashion.relume").write_bytes(b"<!DOCTYPE html><title>Sign in</title>" * 100)
    with pytest.raises(BundleError, match=r"is no bundle: it begins with b'<!DOCTYPE html>.*Is it a page"):
        pull(f"{web.url}/fashion.relume", tmp_path)


def test_a_damaged_file_is_refused_and_not_kept(web: Static, bundle: Path, tmp_path: Path) -> None:
    content = bytearray(bundle.read_bytes())
    content[700_000] ^= 4
    (web.root / "fashion.relume").write_bytes(content)
    with pytest.raises(BundleError, match="model.safetensors was changed"):
        pull(f"{web.url}/fashion.relume", tmp_path / "back.relume")
    (web.root / "fashion.relume").write_bytes(bundle.read_bytes())
    assert pull(f"{web.url}/fashion.relume", tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/y", "data:text/plain,x"])
def test_redirects_to_other_schemes_are_refused(web: Static, tmp_path: Path, target: str) -> None:
    web.fault = lambda handler: handler.answer(302, b"", Location=target) or True
    with pytest.raises(ExchangeError, match=r"leads on to a (file|ftp|gopher|data): address; that is refused"):
        pull(f"{web.url}/fashion.relume", tmp_path)


def test_redirects_end(web: Static, tmp_path: Path) -> None:
    web.fault = lambda handler: handler.answer(302, b"", Location=handler.path + "x") or True
    with pytest.raises(ExchangeError, match="the server answers 302"):
        pull(f"{web.url}/fashion.relume", tmp_path)
    assert sum(web.requests.values()) < 20


def test_a_redirect_is_followed_and_gets_no_password(web: Static, bundle: Path, tmp_path: Path) -> None:
    (web.root / "fashion.relume").write_bytes(bundle.read_bytes())
    first = Static(tmp_path / "nothing")
    first.fault = lambda handler: handler.answer(302, b"", Location=f"{web.url}/fashion.relume") or True
    with serving(first):
        pull(f"http://me:geheim@127.0.0.1:{first.server_address[1]}/fashion.relume", tmp_path / "back.relume")
    assert all(headers.get("Authorization") == "Basic bWU6Z2VoZWlt" for headers in first.headers)
    assert not any("Authorization" in headers for headers in web.headers)


def endless(handler) -> None:
    with pytest.raises(OSError):
        while True:
            handler.wfile.write(b"PK\x03\x04" * 65536)


@pytest.mark.parametrize("length", [None, "10"])
def test_endless_bodies_end(web: Static, bundle: Path, tmp_path: Path, length: str | None) -> None:
    push(bundle, web.root)

    def fault(handler) -> bool:
        if "objects/" not in handler.path and not handler.path.endswith("bare.relume"):
            return False
        handler.send_response(200)
        if length:
            handler.send_header("Content-Length", length)
        handler.end_headers()
        endless(handler)
        return True

    web.fault = fault
    message = "goes on after its" if length is None else "has 10 bytes where .* were pushed"
    with pytest.raises(ExchangeError, match=message):
        pull(f"{web.url}/fashion", tmp_path / "back.relume")
    message = "does not say how long the file is" if length is None else "is no archive|cut short|damaged|no bundle"
    with pytest.raises((ExchangeError, BundleError), match=message):
        pull(f"{web.url}/bare.relume", tmp_path / "bare.relume")


def test_an_endless_index_ends(web: Static, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("relume.share.exchange.places.MAX_INDEX_BYTES", 1 << 20)

    def fault(handler) -> bool:
        handler.send_response(200)
        handler.end_headers()
        endless(handler)
        return True

    web.fault = fault
    with pytest.raises(ExchangeError, match=r"fashion.relume.json is longer than 1,048,576 bytes"):
        pull(f"{web.url}/fashion.relume.json", tmp_path)


def test_objects_that_differ_are_refused(web: Static, bundle: Path, tmp_path: Path) -> None:
    push(bundle, web.root)

    def fault(handler) -> bool:
        if "objects/" not in handler.path:
            return False
        size = (web.root / handler.path.lstrip("/")).stat().st_size
        handler.answer(200, b"\7" * size)
        return True

    web.fault = fault
    with pytest.raises(ExchangeError, match="is not what was pushed: its hash differs"):
        pull(f"{web.url}/fashion", tmp_path / "back.relume")
    web.fault = lambda handler: False
    assert pull(f"{web.url}/fashion", tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()


def test_a_second_pull_to_the_same_file_waits_for_nobody(web: Static, bundle: Path, tmp_path: Path) -> None:
    push(bundle, web.root)
    web.stop_at = 1_000_000
    out, results = tmp_path / "back.relume", []
    thread = threading.Thread(target=lambda: results.append(pull(f"{web.url}/fashion", out)))
    thread.start()
    assert web.stopped.wait(60)
    web.stop_at = None
    with pytest.raises(ExchangeError, match="is being pulled by another process"):
        pull(f"{web.url}/fashion", out)
    web.go_on.set()
    thread.join()
    assert results[0].path.read_bytes() == bundle.read_bytes()
