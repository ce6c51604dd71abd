"""Kinds: what can be logged besides numbers. ``content(run_folder)`` is what the journal holds of one, ``read`` is its way back.

Nothing here imports torch, Pillow or matplotlib before something of theirs is logged.
"""

from relume.monitor.kinds.base import Content, Media
from relume.monitor.kinds.curves import ConfusionMatrix, PRCurve
from relume.monitor.kinds.figure import Figure
from relume.monitor.kinds.graph import Graph
from relume.monitor.kinds.histogram import Histogram
from relume.monitor.kinds.hparams import HParams
from relume.monitor.kinds.image import Image
from relume.monitor.kinds.infer import media_of
from relume.monitor.kinds.mesh import Mesh
from relume.monitor.kinds.predictions import Predictions
from relume.monitor.kinds.read import read
from relume.monitor.kinds.table import Table
from relume.monitor.kinds.text import Text

KINDS = frozenset(
    ("image", "histogram", "text", "mesh", "graph", "table", "figure", "pr_curve", "confusion_matrix", "hparams")
)
"""The names of all kinds."""

__all__ = [
    "KINDS",
    "ConfusionMatrix",
    "Content",
    "Figure",
    "Graph",
    "HParams",
    "Histogram",
    "Image",
    "Media",
    "Mesh",
    "PRCurve",
    "Predictions",
    "Table",
    "Text",
    "media_of",
    "read",
]
