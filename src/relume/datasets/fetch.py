"""Datasets that torchvision reads and downloads. It is imported only here, and only when needed (0.7 seconds)."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import io
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from relume.datasets.places import say
from relume.datasets.transform import Transform, chosen_transform
from relume.errors import DownloadError, MissingPackageError

_PROBE_SECONDS = 3.0
_STALL_SECONDS = 30.0


def has_torchvision() -> bool:
    """Whether torchvision is installed, found out without importing it."""
    return importlib.util.find_spec("torchvision") is not None


def torchvision_datasets(purpose: str) -> Any:
    """The module ``torchvision.datasets``, or an error that says how to get it."""
    try:
        import torchvision.datasets
    except ImportError as error:
        raise MissingPackageError(f'{purpose} needs torchvision: pip install "relume[vision]".') from error
    return torchvision.datasets


def open_torchvision(name: str, root: Path, train: bool, transform: Transform, source: str) -> Any:
    """torchvision's dataset ``name`` from files that are there, with the attribute ``source``."""
    datasets = torchvision_datasets(name)
    if transform == "tensor":
        from torchvision.transforms import ToTensor

        transform = ToTensor()
    dataset = getattr(datasets, name)(root, train=train, transform=chosen_transform(transform))
    dataset.source = source
    return dataset


def obstacle(url: str) -> str | None:
    """Why a download cannot even begin, or ``None``. A network that does not answer costs three seconds."""
    if not has_torchvision():
        return 'downloading needs torchvision: pip install "relume[vision]"'
    if not answers(url):
        return f"the network does not answer ({url.split('/')[2]})"
    return None


def download(name: str, root: Path, quiet: bool) -> None:
    """Let torchvision download its dataset ``name``, and put the files below ``root`` when all of them are there.

    The files arrive in a folder beside their place and are moved one by one, each of them whole: whatever breaks off
    leaves nothing half-made. A network that falls silent costs half a minute.

    Raises:
        DownloadError: the files did not arrive, with the reason.
    """
    say(f"downloading {name} to {root}", quiet)
    make = getattr(torchvision_datasets(name), name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as staging:
            with _stalls_end(), _progress_bar(quiet):
                make(staging, download=True)
            _move(Path(staging), root)
    except (OSError, RuntimeError, EOFError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()).rstrip(".")  # torchvision's has several lines
        raise DownloadError(f"the download broke off: {reason}") from error


def answers(url: str, timeout_seconds: float = _PROBE_SECONDS) -> bool:
    """Whether a server answers in time. Asked on a thread of its own, because looking up a name has no time limit."""
    heard = threading.Event()
    thread = threading.Thread(target=_ask, args=(url, timeout_seconds, heard), daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    return heard.is_set()


def _ask(url: str, timeout_seconds: float, heard: threading.Event) -> None:
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds):
            heard.set()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, http.client.HTTPException):
        pass


@contextlib.contextmanager
def _stalls_end() -> Iterator[None]:
    """torchvision sets no time limit on its sockets: a silent server would be waited for without end."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _progress_bar(quiet: bool) -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext():
        yield


def _move(staging: Path, root: Path) -> None:
    """Move the unpacked files; the archives they came from stay behind."""
    for file in sorted(path for path in staging.rglob("*") if path.is_file() and path.suffix != ".gz"):
        target = root / file.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
