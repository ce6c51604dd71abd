"""What fsspec reaches as a place for bundles: s3, gs, sftp, memory and others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from relume.checkpoint.files import Buffer
from relume.errors import ConfigurationError, ExchangeError, MissingPackageError
from relume.provenance.secrets import without_credentials
from relume.share.exchange.remote import Opened, PassingError

_PIECE_BYTES = 1 << 20
_READ_BYTES = 8 << 20
_RENAMES = {"sftp", "ssh", "ftp", "smb", "arrow_hdfs", "hdfs", "webhdfs", "dir", "local", "file"}
"""File systems where a file is there before it is whole."""
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run `aws configure`; a public bucket: FSSPEC_S3_ANON=true.",
    "gs": "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS.",
    "az": "Set AZURE_STORAGE_CONNECTION_STRING, or run `az login`.",
    "sftp": "Set up a key with ssh-agent, or give the user in the address (sftp://USER@host/…).",
}
_SAME = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az", "ssh": "sftp"}
_NO_CREDENTIALS = (
    "NoCredentials",
    "PartialCredentials",
    "TokenRetrieval",
    "SSOToken",
    "DefaultCredentials",
    "ClientAuthentication",
    "Authentication",
)
_PASSING = (
    "Timeout",
    "Connection",
    "IncompleteRead",
    "ServerDisconnected",
    "ClientPayload",
    "EndpointConnection",
    "SlowDown",
    "HTTPClientError",
)


class FileSystem:
    """Files below a URL that fsspec understands.

    Args:
        url: ``s3://bucket/folder``.
        options: for the file system's constructor; by default its own ways to find what it needs.

    Raises:
        MissingPackageError: fsspec, or what it needs for this kind of URL.
        ConfigurationError: fsspec knows no such kind of URL.
    """

    is_writable = True

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.name = without_credentials(url).partition("?")[0].rstrip("/")
        scheme = url.partition("://")[0].lower()
        self._kind = _SAME.get(scheme, scheme)
        try:
            import fsspec  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise MissingPackageError(f'{self.name} needs fsspec: pip install "relume[hub]".') from error
        try:
            self._fs, self._root = fsspec.url_to_fs(
                url, **{"use_listings_cache": False, "skip_instance_cache": True, **(options or {})}
            )
        except ImportError as error:
            raise MissingPackageError(
                f'{self.name} needs a package that is not there: pip install "relume[hub]" has those of s3; '
                f"for others, fsspec says: {error!s:.200}"
            ) from error
        except ValueError as error:
            known = "a folder, s3://, gs://, sftp://, hf://, and https:// for pulling"
            raise ConfigurationError(
                f"{self.name}: fsspec cannot open it ({self._clean(error)}). A place is {known}."
            ) from None
        except Exception as error:
            raise self._failed("", error) from None
        self._root = self._root.rstrip("/")

    def size(self, path: str) -> int | None:
        found = self._info(path)
        return None if found is None else int(found.get("size") or 0)

    def open(self, path: str, start: int = 0, tag: str = "") -> Opened | None:
        found = self._info(path)
        if found is None:
            return None
        total, tag_there = int(found.get("size") or 0), _tag(found)
        begin = start if start <= total and (not tag or tag == tag_there) else 0
        return Opened(begin, total, tag_there, self._pieces(path, begin, total), lambda: None)

    def write(self, path: str, content: Buffer) -> None:
        target = self._full(path)
        try:
            if not self._kind.startswith(("s3", "gs", "az")):
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            if self._kind in _RENAMES:
                self._fs.pipe_file(f"{target}.tmp", bytes(content))
                self._fs.mv(f"{target}.tmp", target)
            else:
                self._fs.pipe_file(target, bytes(content))
        except Exception as error:
            raise self._failed(path, error) from None

    def names(self) -> list[str] | None:
        try:
            return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in self._fs.ls(self._root, detail=False))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._failed("", error) from None

    def _info(self, path: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._fs.info(self._full(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise self._failed(path, error) from None
        return found if found.get("type", "file") == "file" else None

    def _pieces(self, path: str, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            try:
                content = self._fs.cat_file(self._full(path), start=start, end=min(start + _READ_BYTES, end))
            except FileNotFoundError:
                raise ExchangeError(f"{self.name}: {path} went away while it was read.") from None
            except Exception as error:
                raise self._failed(path, error) from None
            if not content:
                return
            for at in range(0, len(content), _PIECE_BYTES):
                yield content[at : at + _PIECE_BYTES]
            start += len(content)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _failed(self, path: str, error: BaseException) -> ExchangeError:
        kinds = [kind.__name__ for kind in type(error).__mro__]
        what = f"{self.name}{': ' + path if path else ''}"
        if any(word in kind for kind in kinds for word in _NO_CREDENTIALS):
            return ExchangeError(f"{what}: there are no credentials for it here. {self._advice()}")
        if isinstance(error, PermissionError):
            return ExchangeError(
                f"{what}: it may not be read or written with these credentials ({self._clean(error)}). {self._advice()}"
            )
        if isinstance(error, FileNotFoundError):
            return ExchangeError(
                f"{what}: there is no such bucket or folder ({self._clean(error)}). Make it, or check the address."
            )
        if isinstance(error, (TimeoutError, ConnectionError)) or any(
            word in kind for kind in kinds for word in _PASSING
        ):
            return PassingError(f"{what}: the connection failed: {self._clean(error)}.")
        return ExchangeError(f"{what}: {self._clean(error)}.")

    def _advice(self) -> str:
        return _CREDENTIALS.get(self._kind, "See the documentation of fsspec for this kind of address.")

    def _clean(self, error: BaseException) -> str:
        """What it says, on one line and without what an address may hold."""
        words = " ".join(
            without_credentials(word).partition("?")[0] if "://" in word else word for word in str(error).split()
        )
        return f"{type(error).__name__}: {words:.200}".rstrip(". :")


def _tag(found: Mapping[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created"):
        if found.get(key):
            return str(found[key])[:300]
    return ""
