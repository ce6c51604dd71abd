"""The Hugging Face Hub: a bundle's files as they are, so that its pages and others' code read them too.

The hub's own client does the transfer and knows the login (``hf auth login``, HF_TOKEN) and the server (HF_ENDPOINT).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relume.checkpoint import files
from relume.checkpoint.hashing import hash_parts
from relume.errors import BundleError, ConfigurationError, ExchangeError, MissingPackageError, UnsafeFileError
from relume.share.archive import Parts, assembled, file_parts
from relume.share.bundle import Bundle
from relume.share.exchange.progress import Meter
from relume.share.exchange.staging import check_room, staging
from relume.share.manifest import MANIFEST, MAX_BYTES, Manifest, Member
from relume.version import __version__

if TYPE_CHECKING:
    from relume.share.exchange.pulling import Pulled
    from relume.share.exchange.pushing import Pushed

_ADDRESS = re.compile(r"hf://([\w][\w.-]{0,95}/[\w][\w.-]{0,95})(?:@([\w][\w./-]{0,200}))?/?", re.ASCII | re.IGNORECASE)
_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN"


def parse(address: str) -> tuple[str, str | None]:
    """Repository and revision of ``hf://user/name[@revision]``.

    Raises:
        ConfigurationError: it is something else.

    Example:
        >>> parse("hf://me/fashion@v1")
        ('me/fashion', 'v1')
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigurationError(
            f"{address!r:.200} is no repository of the hub: write hf://USER/NAME or hf://USER/NAME@REVISION."
        )
    return match[1], match[2]


def push_to_hub(path: Path, address: str, *, private: bool | None, force: bool, progress: bool | None) -> Pushed:
    """Make the repository's files those of the bundle, in one commit. See `relume.share.exchange.pushing`.

    Files that the hub has already do not travel. Files of an older bundle that are not in this one are deleted in the
    same commit (its history keeps them); those that begin with a dot are the hub's own and stay.
    """
    from relume.share.exchange.pushing import Pushed

    repository, revision = parse(address)
    bundle = Bundle.open(path)
    hub = _hub()
    place = f"hf://{repository}{'@' + revision if revision else ''}"
    with _explained(place, "pushing"), _bars(progress), Meter("pushing", 0, False) as meter:
        api = hub.HfApi(library_name="relume", library_version=__version__)
        api.create_repo(repository, private=private, exist_ok=True)
        if revision:
            api.create_branch(repository, branch=revision, exist_ok=True)
        parent = api.model_info(repository, revision=revision).sha
        there = {
            entry.path: entry
            for entry in api.list_repo_tree(repository, recursive=True, revision=revision)
            if isinstance(entry, hub.hf_api.RepoFile)
        }
        own = {name for name in there if not name.startswith(".")}
        if own and MANIFEST not in own and not force:
            raise ExchangeError(
                f"{place} holds {len(own)} files and is no bundle: choose another name, or push with --force, which replaces "
                "them (its history keeps them)."
            )
        operations: list[Any] = []
        with tempfile.TemporaryDirectory(prefix=".push-", dir=_beside(path)) as folder:
            for member in [*bundle.manifest.members, None]:
                name = MANIFEST if member is None else member.path
                content = bundle.manifest.text() if member is None else bundle.buffer(name)
                if name in there and _is_same(there[name], content):
                    meter.there(len(content))
                else:
                    operations.append(hub.CommitOperationAdd(name, _file(bundle, member, content, Path(folder))))
                    meter.moved(len(content))
            kept = {MANIFEST, *bundle.members()}
            operations += [hub.CommitOperationDelete(name) for name in sorted(own - kept)]
            if operations:
                message = f"Push {bundle.name} with relume {__version__}"
                api.create_commit(
                    repository, operations, commit_message=message, revision=revision, parent_commit=parent
                )
    return Pushed(place, bundle.manifest.digest, meter.moved_bytes, meter.there_bytes, meter.seconds)


def pull_from_hub(address: str, out: str | os.PathLike[str] | None, *, progress: bool | None) -> Pulled:
    """Bring a repository's bundle as one file. See `relume.share.exchange.pulling`.

    The manifest comes first; only the files that it names are fetched, and none that is larger there than it says.
    """
    from relume.share.exchange.pulling import Pulled, is_there, target_of

    repository, revision = parse(address)
    hub = _hub()
    place = f"hf://{repository}{'@' + revision if revision else ''}"
    target, older = target_of(out, repository.partition("/")[2])
    with staging(target) as folder, Meter("pulling", 0, False) as meter, _bars(progress), _explained(place, "pulling"):
        api = hub.HfApi(library_name="relume", library_version=__version__)
        commit = str(api.model_info(repository, revision=revision).sha)
        sizes = {
            entry.path: entry.size
            for entry in api.list_repo_tree(repository, recursive=True, revision=commit)
            if isinstance(entry, hub.hf_api.RepoFile)
        }
        snapshot = folder / "files"
        manifest = _manifest(api, place, repository, commit, sizes, snapshot)
        if is_there(target, manifest.digest):
            return Pulled(target, manifest.digest, 0, target.stat().st_size, meter.seconds)
        contents = _here(manifest, snapshot, older)
        missing = [member for member in manifest.members if member.path not in contents]
        _check_sizes(place, missing, sizes)
        meter.there(sum(member.size_bytes for member in manifest.members if member.path in contents))
        needed = sum(member.size_bytes for member in [*manifest.members, *missing])
        check_room(folder, needed, place)
        if missing:
            names = [glob.escape(member.path) for member in missing]
            api.snapshot_download(repository, revision=commit, local_dir=snapshot, allow_patterns=names)
        for member in missing:
            contents[member.path] = file_parts(snapshot / member.path)
            meter.moved(member.size_bytes)
        archive = folder / "whole.relume"
        files.remove(archive)
        _check_files(place, snapshot, missing)
        files.write_new(archive, assembled(manifest, contents))
        Bundle.open(archive)
        files.publish(archive, target)
    return Pulled(target, manifest.digest, meter.moved_bytes, meter.there_bytes, meter.seconds)


def _manifest(api: Any, place: str, repository: str, commit: str, sizes: dict[str, int], snapshot: Path) -> Manifest:
    if MANIFEST not in sizes:
        raise ExchangeError(f"{place} is no bundle: it holds no {MANIFEST}. `relume push` makes one that is.")
    if sizes[MANIFEST] > MAX_BYTES:
        raise BundleError(f"{place}: its {MANIFEST} is longer than any. Nothing of it was used.")
    path = Path(api.hf_hub_download(repository, MANIFEST, revision=commit, local_dir=snapshot))
    if path.is_symlink() or path.stat().st_size > MAX_BYTES:
        raise UnsafeFileError(f"{place}: its {MANIFEST} is not what the hub said. Nothing of it was used.")
    return Manifest.read(path.read_bytes(), place)


def _check_sizes(place: str, missing: list[Member], sizes: dict[str, int]) -> None:
    for member in missing:
        if sizes.get(member.path) != member.size_bytes:
            there = f"has {sizes[member.path]:,} bytes" if member.path in sizes else "is missing"
            raise BundleError(
                f"{place} is not what was packed: {member.path} {there}, {member.size_bytes:,} were packed."
            )


def _check_files(place: str, snapshot: Path, members: list[Member]) -> None:
    for member in members:
        path = snapshot / member.path
        if path.is_symlink() or not path.is_file() or path.stat().st_size != member.size_bytes:
            raise ExchangeError(f"{place}: {member.path} did not arrive whole. Pull again.")


def _here(manifest: Manifest, snapshot: Path, older: list[Path]) -> dict[str, Parts]:
    """Files that need not travel, by their digests: of an older bundle, or of a pull that was stopped."""
    known: dict[str, Parts] = {}
    for path in older:
        with contextlib.suppress(BundleError, UnsafeFileError):
            bundle = Bundle(path)
            changed = {difference.member for difference in bundle.differences()}
            for member in bundle.manifest.members:
                if member.path not in changed:
                    known.setdefault(member.blake3, _parts(bundle, member.path))
    for member in manifest.members:
        path = snapshot / member.path
        if path.is_file() and not path.is_symlink() and path.stat().st_size == member.size_bytes:
            content = file_parts(path)
            if hash_parts(content(), member.size_bytes) == member.blake3:
                known.setdefault(member.blake3, content)
    return {member.path: known[member.blake3] for member in manifest.members if member.blake3 in known}


def _parts(bundle: Bundle, path: str) -> Parts:
    return lambda: [bundle.buffer(path)]


def _file(bundle: Bundle, member: Member | None, content: Any, folder: Path) -> Path | bytes:
    """What the client takes: bytes, or a file where they are many."""
    if len(content) < 1 << 20 or member is None:
        return bytes(content)
    place = bundle.place(member.path)
    if place.path != bundle.path:
        return place.path
    path = folder / member.blake3
    if not path.exists():
        files.write_new(path, [content])
    return path


def _is_same(entry: Any, content: Any) -> bool:
    """Whether the hub has this content already, by git's digests."""
    if entry.size != len(content):
        return False
    if entry.lfs is not None:
        return bool(hashlib.sha256(content).hexdigest() == entry.lfs.sha256)
    blob = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    blob.update(content)
    return bool(blob.hexdigest() == entry.blob_id)


def _beside(path: Path) -> Path | None:
    parent = path.absolute().parent
    return parent if os.access(parent, os.W_OK) else None


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.hf_api
    except ImportError as error:
        raise MissingPackageError('the Hugging Face Hub needs huggingface_hub: pip install "relume[hub]".') from error
    return huggingface_hub


@contextlib.contextmanager
def _bars(progress: bool | None) -> Iterator[None]:
    """The client's own bars, on a terminal only."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown = sys.stderr.isatty() if progress is None else progress
    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextlib.contextmanager
def _explained(place: str, doing: str) -> Iterator[None]:
    """The client's errors as ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise ExchangeError(
            f"{doing} {place}: its owner has to let you in first: ask on its page. {_LOGIN}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ExchangeError(f"{doing} {place}: there is no such revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise ExchangeError(
            f"{doing} {place}: there is no such repository, or it is private and this is not a login that may see it. {_LOGIN}."
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise ExchangeError(f"{doing} {place}: there is no login here. {_LOGIN}.") from error
    except errors.OfflineModeIsEnabled as error:
        raise ExchangeError(f"{doing} {place}: HF_HUB_OFFLINE is set: unset it.") from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        said = f"{doing} {place}: the hub answers {code} {error.response.reason_phrase}".rstrip()
        if code in (401, 403):
            raise ExchangeError(
                f"{said}. {_LOGIN} of somebody who may {'write' if doing == 'pushing' else 'read'} it."
            ) from error
        if code in (409, 412):
            raise ExchangeError(f"{said}: somebody changed it at the same time. Push again.") from error
        raise ExchangeError(f"{said}. Call it again later: what arrived does not travel again.") from error
    except (BundleError, UnsafeFileError, ExchangeError):
        raise
    except Exception as error:
        if (
            isinstance(error, OSError)
            and error.errno is not None
            and not isinstance(error, (ConnectionError, TimeoutError))
        ):
            raise
        module = type(error).__module__.partition(".")[0]
        if module not in ("httpx", "httpx2", "httpcore", "requests", "huggingface_hub") and not isinstance(
            error, (OSError, ValueError, RuntimeError)
        ):
            raise
        words = " ".join(str(error).split())
        raise ExchangeError(
            f"{doing} {place} failed: {type(error).__name__}: {words:.200}. Check the network (and HF_ENDPOINT, if it is set), "
            "and call it again."
        ) from error
