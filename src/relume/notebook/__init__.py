"""``%load_ext relume``: the magic ``%relume`` for notebooks. How runs show themselves is in relume.monitor."""

from relume.notebook.extension import load_ipython_extension, unload_ipython_extension

__all__ = ["load_ipython_extension", "unload_ipython_extension"]
