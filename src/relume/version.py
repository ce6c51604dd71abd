"""The version, for what must not import all of relume to know it."""

__version__ = "0.1.0"
