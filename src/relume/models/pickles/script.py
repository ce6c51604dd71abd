"""TorchScript archives (``torch.jit.save``): their tensors and modules, without their code.

The code is text of TorchScript's own language. It is only searched for which attributes of a class are parameters and
buffers, and for what no model's code needs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from relume.models.archive import Archive
from relume.models.pickles.context import Context
from relume.models.pickles.inert import Inert, walk

PREFIX = "__torch__."

_MAX_CODE_BYTES = 64 << 20
_SHOWN = 120
_MAX_FOREIGN = 10  # of one file of code
_CLASS = re.compile(r"^class (\w+)\(Module\):\n((?:[ \t].*\n|\n)*)", re.MULTILINE)
_LISTED = re.compile(r"^  __(parameters|buffers)__ = \[(.*)\]$", re.MULTILINE)
# Both take in what is not closed too: looking for its end once more from each quote in it would take for ever.
_NAME = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)')
_TEXT = re.compile(r'"(?:[^"\\\n]|\\.)*+(?:"|\\?$)', re.MULTILINE)
_MANGLED = re.compile(r"___torch_mangle_\d+\.")
_FOREIGN = re.compile(
    r"^[ \t]*(?:import|from)[ \t]+(?!__torch__)\w[^\n]*"
    r"|(?<![\w.])(?:eval|exec|compile|open|__import__|globals|breakpoint)\("
    r"|(?<![\w.])(?:os|sys|subprocess|builtins|shutil|socket|importlib|pickle|ctypes)\.[\w.]+\("
    r"|(?:aten::|ops\.aten\.|torch\.)(?:from_file|save|load)\(",
    re.MULTILINE,
)

Classes = dict[str, dict[str, list[str]]]


def read_code(context: Context, archive: Archive, root: str) -> Classes:
    """The parameters and buffers of each class, by the class's name; notes code that no model needs."""
    classes: Classes = {}
    left = _MAX_CODE_BYTES
    prefix = f"{root}/code/"
    for name, entry in archive.entries.items():
        if not name.startswith(prefix) or not name.endswith(".py"):
            continue
        text = archive.read(name, left).decode("utf-8", "replace")
        left -= entry.size_bytes
        context.callables[f"TorchScript {name.removeprefix(f'{root}/')}"] += 1
        module = name.removeprefix(prefix).removesuffix(".py").replace("/", ".")
        for found in _CLASS.finditer(text):
            classes[f"{module}.{found[1]}"] = {kind: _NAME.findall(names) for kind, names in _LISTED.findall(found[2])}
        for foreign in itertools.islice(_FOREIGN.finditer(_TEXT.sub(_blank, text)), _MAX_FOREIGN):
            line = text[foreign.start() : foreign.start() + _SHOWN].strip().partition("\n")[0]
            context.source = name
            context.note(f"TorchScript code: {line}", len(text[: foreign.start()].encode()))
    return classes


def as_modules(content: Any, classes: Classes) -> Any:
    """Give the modules in ``content`` the attributes that a pickled ``nn.Module`` has, in place."""
    modules = [
        value
        for _, value in walk(content)
        if isinstance(value, Inert) and not value.is_reference and isinstance(value.state, dict)
    ]
    listed = {value.class_name: _lists_of(value, classes) for value in modules}
    for module in modules:
        parameters, buffers = listed[module.class_name]
        own = module.attributes
        tensors = {name: value for name, value in own.items() if isinstance(value, torch.Tensor) or value is None}
        parts = {
            "_parameters": {name: tensors[name] for name in parameters if name in tensors},
            "_buffers": {name: tensors[name] for name in buffers if name in tensors},
            "_modules": {name: value for name, value in own.items() if _is_module(value)},
        }
        used = {name for part in parts.values() for name in part}
        module.state = {**{name: value for name, value in own.items() if name not in used}, **parts}
    for module in modules:
        module.class_name = plain_name(module.class_name)
    return content


def plain_name(class_name: str) -> str:
    """A class's name as its author knew it.

    Example:
        >>> plain_name("__torch__.torch.nn.modules.linear.___torch_mangle_0.Linear")
        'torch.nn.modules.linear.Linear'
    """
    return _MANGLED.sub("", class_name.removeprefix(PREFIX))


def constants(content: Any) -> Mapping[str, torch.Tensor]:
    """The tensors of a frozen module, which are constants of its code, as that calls them."""
    return dict(_constants(content))


def _constants(content: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for number, value in enumerate(content if isinstance(content, (tuple, list)) else ()):
        if isinstance(value, torch.Tensor):
            yield f"CONSTANTS.c{number}", value


def _blank(text: re.Match[str]) -> str:
    """As many spaces: what stands between quotes is no code."""
    return " " * len(text[0])


def _lists_of(module: Inert, classes: Classes) -> tuple[list[str], list[str]]:
    if module.class_name in classes:
        found = classes[module.class_name]
        return found.get("parameters", []), found.get("buffers", [])
    return [name for name, value in module.attributes.items() if isinstance(value, torch.Tensor)], []


def _is_module(value: Any) -> bool:
    return isinstance(value, Inert) and value.class_name.startswith(PREFIX) and isinstance(value.state, dict)
