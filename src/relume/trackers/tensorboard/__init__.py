"""TensorBoard: its event files, and its server."""

from relume.trackers.tensorboard.tracker import TensorBoard

__all__ = ["TensorBoard"]
