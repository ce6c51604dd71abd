"""Models as graphs: the ``.pt2`` archives of ``torch.export``, read without running what they say."""

from relume.models.exported.graph import load_exported, read_pt2_state
from relume.models.exported.model import ExportedModel
from relume.models.exported.parts import graph_files, load_graph
from relume.models.exported.saving import save_exported

__all__ = ["ExportedModel", "graph_files", "load_exported", "load_graph", "read_pt2_state", "save_exported"]
