"""The page's server: the answers over HTTP, to a browser on this machine unless told otherwise."""

from relume.ui.server.serving import Address, running

__all__ = ["Address", "running"]
