"""``relume ui`` as a person starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import Request, urlopen

from asking import TOKEN

import relume


@contextmanager
def started(*arguments: object, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the line that it prints when the page can be opened."""
    command = [sys.executable, "-m", "relume", "ui", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80", **variables}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def url_in(line: str) -> str:
    found = re.search(r"http://\S+", line)
    assert found, line
    return found[0]


def failure(*arguments: object, **variables: str) -> str:
    command = [sys.executable, "-m", "relume", "ui", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables}, timeout=60)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def test_it_says_where_the_page_is_and_ends_at_ctrl_c_with_status_0_while_a_page_is_open(root: Path) -> None:
    with started("--root", root, "--port", 0) as (process, line):
        assert line.startswith(f"1 run in {root}: http://127.0.0.1:")
        assert "Read-only but for notes, tags and archiving." in process.stdout.readline()
        address = url_in(line).removeprefix("http://").rstrip("/")
        connection = HTTPConnection(address, timeout=60)
        connection.request("GET", "/api/events")
        stream = connection.getresponse()
        assert stream.readline() == b"retry: 1000\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stdout.read() == ""
        connection.close()


def test_torch_is_not_loaded_and_training_goes_first(root: Path) -> None:
    with relume.Run("other", root=root, quiet=True) as run:
        run.log({"train/loss": 0.5}, step=1)
        run.checkpoint()
    asked = ("runs", "run/fashion", "run/other", "run/fashion/console", "run/fashion/media")
    asked += ("marks?run=other", "compare?run=fashion&run=other", "choose?sort=seed")
    with started("--root", root, "--port", 0) as (process, line):
        for target in ("", *(f"api/{one}" for one in asked)):
            with urlopen(url_in(line) + target) as answer:
                assert answer.status == 200
        assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()
        assert os.getpriority(os.PRIO_PROCESS, process.pid) >= 10


def test_a_run_opens_its_own_page(root: Path) -> None:
    for arguments in (("fashion", "--root", root), (root / "fashion",)):
        with started(*arguments, "--port", 0) as (_, line):
            assert line.rstrip().endswith("/#/run/fashion")
            assert line.startswith(f"1 run in {root}")


def test_a_folder_is_a_root_and_one_that_is_not_there_yet_is_served_too(root: Path, tmp_path: Path) -> None:
    with started(root, "--port", 0) as (_, line):
        assert line.startswith(f"1 run in {root}: ")
    with started("--root", tmp_path / "later", "--port", 0) as (_, line):
        assert line.startswith(f"{tmp_path / 'later'} (not there yet): http://")


def test_without_a_port_the_next_free_one_is_taken(root: Path) -> None:
    with started("--root", root) as (_, first), started("--root", root) as (_, second):
        ports = [int(re.search(r":(\d+)/", line)[1]) for line in (first, second)]
    assert 6060 <= ports[0] < ports[1]


def test_other_addresses_need_the_token_that_is_printed(root: Path) -> None:
    with started("--root", root, "--port", 0, "--host", "0.0.0.0") as (_, line):
        url = url_in(line)
        token = url.partition("?token=")[2]
        assert len(token) >= 32
        port = int(re.search(r":(\d+)/", url)[1])
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/api/runs")
        assert connection.getresponse().status == 401
        connection.close()
        with urlopen(
            Request(f"http://127.0.0.1:{port}/api/runs", headers={"authorization": f"Bearer {token}"})
        ) as answer:
            assert answer.status == 200


def test_a_token_can_be_asked_for_here_and_chosen(root: Path) -> None:
    with started("--root", root, "--port", 0, "--token") as (_, line):
        assert "/?token=" in line
    with started("--root", root, "--port", 0, RELUME_UI_TOKEN=TOKEN) as (_, line):
        assert url_in(line).endswith(f"/?token={TOKEN}")


def test_what_cannot_be_served_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file: --root is the folder" in failure("--root", tmp_path / "file")
    assert "is a file: --root is the folder" in failure(tmp_path / "file")
    assert "there is no run 'fashoin'" in failure("fashoin", "--root", root)
    assert "there is no such address" in failure("--root", root, "--host", "no such host")
    assert "is no address of this machine" in failure("--root", root, "--host", "192.0.2.1")
    assert "RELUME_UI_TOKEN must be 16 to 200" in failure("--root", root, RELUME_UI_TOKEN="short")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} is taken" in failure("--root", root, "--port", port)


def test_without_its_packages_it_names_the_extra(root: Path, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ImportError('not here')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert 'pip install "relume[ui]"' in failure("--root", root, PYTHONPATH=path)
