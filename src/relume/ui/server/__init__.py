"""The page's server: the answers over HTTP, to a browser on this machine unless told otherwise."""

from relume.errors import MissingPackageError

try:
    import starlette  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MissingPackageError(
        'the page needs starlette and uvicorn, which are not installed: pip install "relume[ui]". '
        "`relume report` writes the same page as one file, without them."
    ) from error

from relume.ui.server.serving import Address, new_token, running, serve

__all__ = ["Address", "new_token", "running", "serve"]
