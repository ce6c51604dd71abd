"""Which classes and functions no file of weights has a reason to name.

Nothing that a file names is ever looked up, so that these lists protect nobody by themselves: they tell a user that a
file was made to do harm elsewhere.
"""

from __future__ import annotations

import builtins
import sys

_MODULES_TEXT = """
    os posix nt subprocess _posixsubprocess sys shutil socket _socket importlib _imp imp _frozen_importlib
    _frozen_importlib_external zipimport runpy pickle _pickle cPickle pickletools marshal ctypes _ctypes code codeop pty
    commands popen2 webbrowser asyncio multiprocessing concurrent threading _thread thread signal resource mmap fcntl
    select selectors ssl pdb bdb cProfile profile timeit trace tracemalloc doctest unittest pydoc idlelib lib2to3
    tkinter turtle antigravity http urllib urllib2 requests httpx aiohttp ftplib smtplib poplib imaplib telnetlib xmlrpc
    socketserver wsgiref nntplib site sysconfig shelve dbm sqlite3 tempfile fileinput linecache zipfile tarfile gzip bz2
    lzma glob compileall py_compile pkgutil modulefinder atexit faulthandler gc winreg _winreg _winapi msvcrt pip
    ensurepip venv setuptools distutils pkg_resources dill cloudpickle joblib jsonpickle IPython ipykernel cffi pexpect
    paramiko plumbum psutil __main__.__builtins__ __builtins__ logging.config numpy.f2py numpy.testing numpy.distutils
    pandas.io torch.hub torch.jit torch.package torch.multiprocessing torch.utils.cpp_extension torch.utils.collect_env
    torch.utils.bottleneck torch.utils.model_zoo torch.utils.show_pickle torch.testing torch.ops torch._ops
    torch.classes torch._classes torch._inductor torch._dynamo torch.distributed.rpc torch.distributed.run
    torch.distributed.elastic torch.distributed.launcher torch.distributed.launch torch.onnx torch._import_utils
    torch._lazy torch.monitor
"""
_MODULES = frozenset(_MODULES_TEXT.split())
"""With all that is in them."""

_NAMES_TEXT = """
    types.CodeType types.FunctionType types.LambdaType types.MethodType types.ModuleType types.GeneratorType
    operator.attrgetter operator.methodcaller operator.call _operator.attrgetter _operator.methodcaller _operator.call
    functools.reduce _functools.reduce io.open io.open_code io.FileIO _io.open _io.open_code _io.FileIO codecs.open
    platform.popen inspect.getattr_static weakref.finalize numpy.load numpy.save numpy.fromfile numpy.memmap
    numpy.genfromtxt numpy.loadtxt pandas.read_pickle pandas.eval pandas.compat.pickle_compat.load torch.load torch.save
    torch.compile torch.from_file torch.import_ir_module torch.serialization.load torch.serialization.save
    torch.serialization._load torch.serialization._legacy_load torch.fx._symbolic_trace._exec
    torch.storage.UntypedStorage.from_file
"""
_NAMES = frozenset(_NAMES_TEXT.split())

_PLAIN_LIBRARY_TEXT = """
    abc argparse array builtins calendar cmath collections copy copyreg contextlib _codecs codecs dataclasses datetime
    decimal _decimal _pydecimal enum fractions functools _functools heapq inspect io _io ipaddress itertools keyword
    logging math numbers operator _operator pathlib posixpath ntpath platform queue random _random re sre_compile _sre
    statistics string struct _struct textwrap time types typing uuid warnings weakref _weakref zoneinfo bisect
    unicodedata locale gettext __future__ pprint secrets hashlib _hashlib colorsys graphlib
"""
_PLAIN_LIBRARY = frozenset(_PLAIN_LIBRARY_TEXT.split())
"""Modules of the standard library whose objects are data."""

_HARMLESS_BUILTINS_TEXT = """
    abs all any bin bool chr divmod hash hex id isinstance issubclass iter len max min oct ord pow repr round sorted sum
    getattr Ellipsis NotImplemented None True False copyright credits license object unicode long basestring xrange
"""
_HARMLESS_BUILTINS = frozenset(_HARMLESS_BUILTINS_TEXT.split())
"""``getattr`` is how older protocols write a nested class; what it gets is judged by itself."""

_HIDDEN = frozenset(
    {"os", "posix", "sys", "subprocess", "builtins", "__builtin__", "shutil", "socket", "importlib", "runpy"}
)


def is_dangerous(module: str, name: str) -> bool:
    """Whether this is named in no honest file of weights.

    Example:
        >>> is_dangerous("posix", "system"), is_dangerous("builtins", "eval"), is_dangerous("torch.nn", "Linear")
        (True, True, False)
    """
    path = f"{module}.{name}"
    parts = path.split(".")
    if any(".".join(parts[:length]) in _MODULES for length in range(1, len(parts))) or path in _NAMES:
        return True
    if parts[0] == "builtins":
        value = getattr(builtins, parts[1], None) if len(parts) == 2 else None
        return parts[1] not in _HARMLESS_BUILTINS and not isinstance(value, type)
    # A name with dots walks from the module through attributes: torch.serialization + os.system.
    steps = parts[1:]
    return any(
        step in _HIDDEN or (step.startswith("__") and step.endswith("__")) for step in steps if step != "__main__"
    )


def is_library_call(module: str) -> bool:
    """Whether a call of something in ``module`` would be one of the standard library that makes no plain data."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names and top not in _PLAIN_LIBRARY and top != "__main__"
