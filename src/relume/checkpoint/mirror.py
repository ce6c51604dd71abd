"""The mirror: a second folder, slow and unreliable, that follows the checkpoints of a run behind the training's back.

Copying costs about 2.5 s of one core per GB, reading back and hashing included: 6 % of a core at 30 MB/s.

The mirror is a store itself: ``Store(target)`` lists, verifies and loads it. It needs no locks, no memory maps and no
fsync there. For each checkpoint, in the order in which they were committed: the manifest is announced under a
temporary name; the packs that are missing are copied under temporary names, read back, and renamed; the small files of
the run follow; then the manifest gets its name. So every manifest with a name has all that it needs, at each instant.

What was deleted from the run goes from the mirror when all that is newer is there (on a full drive: when anything
newer is there); see `pruning` for the packs. A checkpoint of another run or another machine is never touched: a mirror
whose folder holds another run, or another checkpoint of the same name, is left as it is, and that is said.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from relume.checkpoint import files
from relume.checkpoint.copying import Copier, is_full
from relume.checkpoint.layout import Checkpoint, Layout
from relume.checkpoint.ledger import Ledger, ledger_path, newest_run_id
from relume.checkpoint.manifest import Manifest, parse
from relume.checkpoint.pruning import Pruner
from relume.checkpoint.store import Store
from relume.errors import ConfigurationError, ManifestError, PackError, RootError, warn

_logger = logging.getLogger(__name__)

_PRUNE_AFTER = 10
_MAX_PAUSE_SECONDS = 300.0
_LAST_ATTEMPTS = 3


@dataclass(frozen=True)
class MirrorStatus:
    """How far the mirror is.

    Attributes:
        checkpoints_behind: committed here, and not yet on the mirror.
        bytes_copied: written to the mirror by this process.
        last_error: what went wrong last, if that was not made good since.
        retries: how often something failed and was tried again.
    """

    checkpoints_behind: int
    bytes_copied: int
    last_error: str | None
    retries: int


class Mirror:
    """Copies the checkpoints of one run to a second folder in the background.

    Training never waits for it and never hears of its failures: they are tried again, after 1, 2, 4 and up to 300
    seconds, said once, and counted at the end.

    Args:
        store: where the checkpoints are made.
        target: the mirror's root. Its parent must exist: a drive that is not mounted is not taken for an empty one.
        folder: of the run's checkpoints: ``"<run>/checkpoints"``. One mirror a run and target.
        extra: gives small files of the run, relative to the store's root, that are copied with each checkpoint and at
            the end: ``run.json``, journals (``.jsonl``: only ever appended to).
        log: is told what the user should know, from the mirror's thread; None is the logging module.
        sleep: waits before the next attempt; for tests.

    Raises:
        RootError: the target is the store itself.
        StorageError: the folder is not one of checkpoints.

    Example:
        >>> store = Store(tmp_path / "runs")
        >>> mirror = Mirror(store, tmp_path / "drive", "fashion/checkpoints")
        >>> checkpoint = store.save({"epoch": 1}, folder="fashion/checkpoints")
        >>> mirror.notify()
        >>> mirror.wait()
        True
        >>> Store(tmp_path / "drive").load_newest("fashion/checkpoints").state
        {'epoch': 1}
        >>> mirror.close()
    """

    def __init__(
        self,
        store: Store,
        target: str | os.PathLike[str],
        folder: str,
        *,
        extra: Callable[[], Iterable[Path]] | None = None,
        log: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self._store = store
        self._target = Layout(Path(target).absolute())
        self._manifests = self._target.manifests(folder)
        if self._target.root.resolve() == store.root.resolve():
            raise RootError(f"the mirror {target} is the root of the runs itself: give mirror= another folder.")
        self._folder = folder
        self._extra = extra
        self._log = log or _logger.warning
        self._sleep = sleep
        self._ledger_path = ledger_path(store.layout, folder, self._target.root)
        self._ledger = Ledger.load(self._ledger_path)
        self._copier = Copier(store.layout, self._target, self._ledger.owner, is_mounted=True, tick=self._tick)
        self._pruner = Pruner(self._copier, folder)
        self._device: int | None = None  # of the target, once it was seen
        self._is_same_run = False
        self._there: set[str] = set()  # checkpoints that this process has found or put on the mirror
        self._refused: dict[str, str] = {}  # checkpoints that cannot be mirrored, and why
        self._is_extra_due = False
        self._withdrawn = 0
        self._bytes_copied = 0
        self._retries = 0
        self._failures = 0  # in a row
        self._last_failures = 0  # since it is closing
        self._last_error: str | None = None
        self._condition = threading.Condition()
        self._asked, self._done = 1, 0  # what was committed before this process began is looked at too
        self._closing = False
        self._cancelled = False
        self._said_missing = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._work, name="relume-mirror", daemon=True)
        self._thread.start()

    # --------------------------------------------------------------------------------------------- the training's side

    def notify(self) -> None:
        """Say that a checkpoint was committed or deleted (1 microsecond; it waits for nothing)."""
        with self._condition:
            self._asked += 1
            self._condition.notify_all()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the mirror has looked at all that is committed now; whether all of it is there.

        Without a timeout this waits as long as the target fails.
        """
        with self._condition:
            self._asked += 1
            asked = self._asked
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._done >= asked or not self._thread.is_alive(), timeout_seconds)
            is_done = self._done >= asked
        return is_done and not self._behind()

    def close(self, timeout_seconds: float = 300.0) -> None:
        """Copy what is missing, a few attempts at most, and end the thread. May be called twice.

        Warns:
            RelumeWarning: how many checkpoints are not on the mirror, and why.
        """
        if os.getpid() != self._process:  # a forked child has no thread
            return
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(timeout_seconds)
        self._cancelled = True  # heard at the next chunk; a drive that hangs is left hanging
        self._thread.join(0.5)
        behind = len(self._behind())
        if (behind or self._last_error) and not self._said_missing:
            self._said_missing = True
            reason = self._last_error or f"{timeout_seconds:g} s were not enough"
            missing = f"{behind} of {len(self._store.list(self._folder))} checkpoints are missing there"
            warn(
                f"the mirror {self._manifests} is not complete: "
                f"{missing if behind else 'its last files were not copied or not tidied up'} ({reason}). "
                f"All is safe in {self._store.root}; the next start of the run makes up for it."
            )

    @property
    def status(self) -> MirrorStatus:
        """How far the mirror is; lists the local folder."""
        return MirrorStatus(len(self._behind()), self._bytes_copied, self._last_error, self._retries)

    def _behind(self) -> list[Checkpoint]:
        return [c for c in self._store.list(self._folder) if c.path.name not in self._there]

    # ----------------------------------------------------------------------------------------------- the mirror's side

    def _work(self) -> None:
        while self._wait_for_work():
            asked, is_last = self._asked, self._closing
            try:
                self._follow(is_last)
            except _CancelledError:
                return
            except Exception as error:  # whatever it is: training goes on
                if not self._failed(error):
                    return
            else:
                self._succeeded(asked)
                if is_last:
                    return

    def _wait_for_work(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._asked > self._done or self._closing)
            return not self._cancelled

    def _failed(self, error: Exception) -> bool:
        """Note a failure and pause; whether to try again."""
        self._last_error = _text(error)
        self._failures += 1
        if self._failures == 1:
            self._say(f"the mirror {self._target.root} fails: {self._last_error}. Training goes on; it is tried again.")
        self._last_failures += self._closing
        if self._last_failures >= _LAST_ATTEMPTS:
            return False
        self._pause(min(2.0 ** min((self._last_failures or self._failures) - 1, 20), _MAX_PAUSE_SECONDS))
        self._retries += 1
        return True

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; the beginning of the end cuts it short."""
        if self._sleep is not None:
            self._sleep(seconds)
            return
        with self._condition:
            was_closing = self._closing
            self._condition.wait_for(lambda: self._cancelled or self._closing != was_closing, seconds)

    def _succeeded(self, asked: int) -> None:
        if self._failures:
            self._say(f"the mirror {self._target.root} works again.")
        self._failures = 0
        refused = [self._refused[c.path.name] for c in self._behind() if c.path.name in self._refused]
        self._last_error = refused[-1] if refused else None
        with self._condition:
            self._done = asked
            self._condition.notify_all()

    def _follow(self, is_last: bool) -> None:
        """Bring the mirror up to what the run has now."""
        self._reach()
        self._require_same_run()
        try:
            named = {checkpoint.path.name for checkpoint in self._target.checkpoints(self._folder)}
            for checkpoint in self._store.list(self._folder):
                name = checkpoint.path.name
                if name not in self._refused and not (name in self._there and name in named):
                    self._mirror(checkpoint)
            if is_last or self._is_extra_due:
                self._copy_extra()
                self._is_extra_due = False
        except OSError as error:
            if is_full(error):
                self._delete_old()
                self._pruner.prune()
            raise
        self._delete_old()
        if is_last or self._withdrawn >= _PRUNE_AFTER:
            self._pruner.prune()
            self._withdrawn = 0

    def _reach(self) -> None:
        """Make sure that the target is there, and is not the empty folder that an unmounted drive leaves behind."""
        root = self._target.root
        if not root.is_dir():
            if self._device is not None or not root.parent.is_dir():
                raise FileNotFoundError(
                    errno.ENOENT, "the mirror's folder is not there: is the drive mounted?", str(root)
                )
            files.system.mkdir(root)
        device = root.stat().st_dev
        if self._device not in (None, device) and not self._target.store.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the mirror's drive is not mounted any more", str(root))
        self._device = device
        for folder in (self._target.packs, self._target.staging, self._manifests):
            self._copier.make_folder(folder)

    def _require_same_run(self) -> None:
        """Two runs of one name must not be mixed: the newest checkpoint of the mirror would be that of the other."""
        if self._is_same_run:
            return
        own = newest_run_id(self._store.list(self._folder))
        other = newest_run_id(self._target.checkpoints(self._folder))
        if own is None:
            return
        if other is not None and other != own:
            raise ConfigurationError(
                f"{self._manifests} holds the checkpoints of another run (id {other}, this one is {own}). "
                "Move them away, or give the run another name, or mirror= another folder"
            )
        self._is_same_run = True

    def _mirror(self, checkpoint: Checkpoint) -> None:
        """Copy one checkpoint; one that was deleted meanwhile is let go."""
        path = self._manifests / checkpoint.path.name
        try:
            content = checkpoint.path.read_bytes()
            manifest = parse(content, checkpoint.path)
        except FileNotFoundError:
            return
        except ManifestError as error:
            self._refuse(checkpoint, str(error))
            return
        there = _content(path)
        is_there = there == content
        if there is not None and not is_there and _is_manifest(there, path):
            reason = f"{path} is another checkpoint of that name: does the run go on twice? It was left as it is."
            self._refuse(checkpoint, reason)
            return
        if not is_there:
            self._copier.announce(path, content)
        if not self._bring_packs(checkpoint, manifest):
            return
        if not is_there:
            self._is_extra_due = True
            with contextlib.suppress(
                Exception
            ):  # what fails here is tried again after the checkpoints: they matter more
                self._copy_extra()
            if not checkpoint.path.exists():
                return
            self._copier.publish(path, content)
            if not self._bring_packs(checkpoint, manifest):  # see pruning: one may have gone before this had its name
                self._copier.withdraw(path)
                return
        self._there.add(path.name)
        self._ledger.mirrored[path.name] = blake3(content).hexdigest()
        self._ledger.save(self._ledger_path)

    def _bring_packs(self, checkpoint: Checkpoint, manifest: Manifest) -> bool:
        try:
            self._copier.ensure_packs(manifest)
        except PackError as error:
            if checkpoint.path.exists():  # and was not deleted, with its packs, while they were copied
                self._refuse(checkpoint, str(error))
            return False
        return True

    def _refuse(self, checkpoint: Checkpoint, reason: str) -> None:
        self._refused[checkpoint.path.name] = reason
        self._say(f"checkpoint {checkpoint} cannot be mirrored: {reason}")

    def _copy_extra(self) -> None:
        for path in self._extra() if self._extra is not None else ():
            relative = path.relative_to(self._store.root) if path.is_absolute() else path
            if ".." in relative.parts:
                raise ConfigurationError(f"{path} is not below the root of the runs, {self._store.root}")
            self._copier.copy_file(relative)

    def _delete_old(self) -> None:
        """Withdraw what the run has deleted, when there is something newer."""
        local = {checkpoint.path.name: checkpoint for checkpoint in self._store.list(self._folder)}
        newest = max((c.sequence for name, c in local.items() if name in self._there), default=0)
        named = {checkpoint.path.name: checkpoint for checkpoint in self._target.checkpoints(self._folder)}
        for name in [name for name in self._ledger.mirrored if name not in local]:
            self._there.discard(name)
            if name not in named:  # forgotten only when a later look finds it gone: a drive may bring it back
                del self._ledger.mirrored[name]
                self._ledger.save(self._ledger_path)
            elif named[name].sequence < newest and self._is_as_mirrored(named[name]):
                self._copier.withdraw(named[name].path)
                self._withdrawn += 1

    def _is_as_mirrored(self, checkpoint: Checkpoint) -> bool:
        content = _content(checkpoint.path)
        return content is not None and blake3(content).hexdigest() == self._ledger.mirrored[checkpoint.path.name]

    def _tick(self, written: int) -> None:
        self._bytes_copied += written
        if self._cancelled:
            raise _CancelledError

    def _say(self, text: str) -> None:
        with contextlib.suppress(Exception):
            self._log(text)


class _CancelledError(BaseException):
    """The time that `close` had is over."""


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return f"{error}" or type(error).__name__


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _is_manifest(content: bytes, path: Path) -> bool:
    try:
        parse(content, path)
    except ManifestError:
        return False
    return True
