"""Whether the package that a tracker needs is there, without importing it."""

from __future__ import annotations

import importlib.util

from relume.errors import MissingPackageError


def require(package: str) -> None:
    """Check that a package can be found; its name is that of relume's extra, too.

    A folder of that name beside the script is none: W&B writes to ``./wandb``, and Python would import it as a package
    without content.

    Raises:
        MissingPackageError: it is not installed.

    Example:
        >>> require("json")
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # something stands in its place that says so
        spec = None
    if spec is None or spec.origin is None:
        raise MissingPackageError(
            f'The tracker "{package}" needs the package {package}, which is not installed: '
            f'pip install "relume[{package}]". What a run logs stands in its own record in any case; '
            f"`relume sync RUN --to {package}` sends it later."
        )
