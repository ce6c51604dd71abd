"""Put first on a child's PYTHONPATH: seeds the global generators before the script begins.

Whether a script gives the same run twice with this, and not without it, tells whether it forgets to seed them.
"""

import importlib.machinery
import importlib.util
import os
import random
import sys
from pathlib import Path

random.seed(0)
try:
    import numpy

    numpy.random.seed(0)
except ImportError:
    pass
if os.environ.get("RELUME_REHEARSAL_KERNELS"):
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)

_others = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
_hidden = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)  # the one that this file stands before
if _hidden is not None and _hidden.loader is not None:
    _hidden.loader.exec_module(importlib.util.module_from_spec(_hidden))
