"""Files of ``torch.save`` and ``torch.jit.save``, read by a machine of relume's own that runs nothing."""

from relume.models.pickles.inert import Inert, describe, walk
from relume.models.pickles.modules import is_module, is_state_dict, module_state, module_tree, state_dict_in
from relume.models.pickles.read import is_torch_file, read_torch

__all__ = [
    "Inert",
    "describe",
    "is_module",
    "is_state_dict",
    "is_torch_file",
    "module_state",
    "module_tree",
    "read_torch",
    "state_dict_in",
    "walk",
]
