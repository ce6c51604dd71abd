"""The command line: one file a group of commands, and no logic of its own."""

from relume.cli.app import main

__all__ = ["main"]
