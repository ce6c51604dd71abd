"""A folder as a place for bundles: a shared disk, a USB stick, what a web server hands out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from relume.checkpoint import files
from relume.checkpoint.files import Buffer
from relume.errors import ExchangeError
from relume.models.tensorfile import staged
from relume.share.exchange.remote import Opened

_PIECE_BYTES = 1 << 20


class Folder:
    """A folder, which is made at the first push. Links in it are followed: it is this machine's own."""

    is_writable = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = str(root)

    def size(self, path: str) -> int | None:
        try:
            status = (self.root / path).stat()
            return None if stat.S_ISDIR(status.st_mode) else status.st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("reading", path, error) from error

    def open(self, path: str, start: int = 0, tag: str = "") -> Opened | None:
        try:
            file = (self.root / path).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("reading", path, error) from error
        status = os.fstat(file.fileno())
        found = f"{status.st_size}-{status.st_mtime_ns}"
        start = start if start <= status.st_size and (not tag or tag == found) else 0

        def pieces() -> Iterator[bytes]:
            try:
                file.seek(start)
                while piece := file.read(_PIECE_BYTES):
                    yield piece
            except OSError as error:
                raise self._failed("reading", path, error) from error

        return Opened(start, status.st_size, found, pieces(), file.close)

    def write(self, path: str, content: Buffer) -> None:
        target = self.root / path
        try:
            files.make_folder(target.parent)
            with staged(target) as beside:
                files.write_new(beside, [content])
                files.publish(beside, target)
        except OSError as error:
            raise self._failed("writing", path, error) from error

    def names(self) -> list[str] | None:
        try:
            return sorted(path.name for path in self.root.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failed("reading", "", error) from error

    def _failed(self, doing: str, path: str, error: OSError) -> ExchangeError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full: make room, and call it again. It goes on where it was."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "Check the folder's owner and how it is mounted, or choose another."
        elif error.errno in (errno.ENOTDIR, errno.EEXIST):
            advice = "There is a file in the way: choose another folder."
        else:
            advice = "Call it again: it goes on where it was."
        return ExchangeError(
            f"{doing} {path or 'the folder'} in {self.name} failed: {error.strerror or error}. {advice}"
        )
