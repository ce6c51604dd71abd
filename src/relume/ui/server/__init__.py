"""The page's server: the answers over HTTP, to a browser on this machine unless told otherwise."""
