"""Data: exact, seekable batches, and datasets kept in memory once they are proven deterministic."""

from relume.data.memory import budget_bytes
from relume.data.stream import Stream, stream_of

__all__ = ["Stream", "budget_bytes", "stream_of"]
