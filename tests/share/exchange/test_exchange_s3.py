"""An S3-compatible server on loopback: bytes are counted on the wire."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from exchange_servers import Wire

from relume.errors import ExchangeError
from relume.share.bundle import Bundle
from relume.share.exchange import pull, push
from relume.share.exchange.index import Source

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")
REQUEST_BYTES = 2500  # headers of one request, and of its answer
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def wire(server: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(server)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{wire.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    yield wire
    wire.close()


@pytest.fixture
def bucket(wire: Wire, request: pytest.FixtureRequest) -> str:
    import s3fs

    name = f"bucket-{abs(hash(request.node.name)) % 10**9}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    wire.reset()
    return f"s3://{name}/models"


def there(bucket: str) -> dict[str, int]:
    import s3fs

    fs = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    return {path.rpartition("/")[2]: info["size"] for path, info in fs.find(bucket, detail=True).items()}


def test_there_and_back_and_another_head(wire: Wire, bucket: str, make, tmp_path: Path) -> None:
    first, second = make("one", 10), make("two", 20)
    pushed = push(first, bucket)
    print(f"first push: {wire.up:,} bytes up for a bundle of {first.stat().st_size:,}")
    assert pushed.sent_bytes <= wire.up < pushed.sent_bytes + 60 * REQUEST_BYTES
    wire.reset()
    pushed = push(second, bucket)
    print(f"second push, with another head: {wire.up:,} bytes up ({pushed.sent_bytes:,} of content)")
    assert wire.up < 20 * 512 * 4 + 60_000 + 60 * REQUEST_BYTES
    wire.reset()
    pulled = pull(f"{bucket}/one", tmp_path / "back.relume")
    print(f"first pull: {wire.down:,} bytes down")
    assert pulled.path.read_bytes() == first.read_bytes()
    wire.reset()
    pulled = pull(f"{bucket}/two.relume", tmp_path / "back.relume")
    print(f"pull of the second onto the first: {wire.down:,} bytes down")
    assert pulled.path.read_bytes() == second.read_bytes() and wire.down < 20 * 512 * 4 + 60_000 + 60 * REQUEST_BYTES


def killed(wire: Wire, call: str, *arguments: str) -> None:
    script = f"import sys; from relume.share.exchange import push, pull; {call}(sys.argv[1], sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", script, *arguments])
    assert wire.stopped.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    print(f"{call} killed after {wire.up:,} bytes up and {wire.down:,} down")
    wire.reset()


def test_a_killed_push_goes_on_where_it_was(wire: Wire, bucket: str, bundle: Path) -> None:
    chunks = {chunk.hash: chunk.size_bytes for chunk in Source(Bundle(bundle)).index.chunks}
    wire.hold_up = 3_500_000
    killed(wire, "push", str(bundle), bucket)
    arrived = there(bucket)
    assert not any(name.endswith(".json") for name in arrived), "the index is last"
    missing = sum(size for name, size in chunks.items() if name not in arrived)
    wire.reset()
    pushed = push(bundle, bucket)
    print(
        f"{len(arrived)} of {len(chunks)} objects had arrived; the second push: {wire.up:,} bytes up, missing {missing:,}"
    )
    assert arrived and missing < sum(chunks.values())
    assert pushed.sent_bytes - 10_000 < missing <= wire.up < missing + 10_000 + 60 * REQUEST_BYTES


def test_a_killed_pull_fetches_what_is_missing(wire: Wire, bucket: str, bundle: Path, tmp_path: Path) -> None:
    push(bundle, bucket)
    wire.reset()
    wire.hold_down = 3_500_000
    killed(wire, "pull", f"{bucket}/fashion", str(tmp_path / "back.relume"))
    pulled = pull(f"{bucket}/fashion", tmp_path / "back.relume")
    print(f"the second pull: {wire.down:,} bytes down, {pulled.there_bytes:,} were here")
    assert pulled.there_bytes and pulled.path.read_bytes() == bundle.read_bytes()
    assert pulled.received_bytes + pulled.there_bytes == Source(Bundle(bundle)).index.size_bytes
    assert pulled.received_bytes <= wire.down < pulled.received_bytes + 10_000 + 60 * REQUEST_BYTES


def test_a_bare_file_in_a_bucket(wire: Wire, bucket: str, bundle: Path, tmp_path: Path) -> None:
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).put_file(str(bundle), f"{bucket}/bare.relume")
    assert pull(f"{bucket}/bare.relume", tmp_path).path.read_bytes() == bundle.read_bytes()


def test_no_credentials_no_bucket_no_server(wire: Wire, bucket: str, bundle: Path, monkeypatch) -> None:
    with pytest.raises(ExchangeError, match="there is no bundle at s3://.*nothing. Check the address"):
        pull(f"{bucket}/nothing")
    with pytest.raises(ExchangeError, match="no such bucket or folder"):
        push(bundle, "s3://no-such-bucket-here/models")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ExchangeError, match="there are no credentials.*AWS_ACCESS_KEY_ID.*aws configure"):
        push(bundle, bucket)


def test_the_other_file_systems_of_fsspec(bundle: Path, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}"
    assert push(bundle, place).sent_bytes > 4_000_000
    assert push(bundle, place).sent_bytes == 0
    for source in (place, f"{place}/fashion.relume"):
        assert pull(source, tmp_path / "back.relume").path.read_bytes() == bundle.read_bytes()
