"""Rules about the numbers themselves: operations, libraries and precisions whose last bits vary."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import torch

from relume.checkup.findings import Finding
from relume.checkup.project import Call, Project, place_of, places_of
from relume.rehearse.scan import Source

_ON_CUDA: dict[str, str] = {
    "index_add": "", "index_add_": "", "scatter_add": "", "scatter_add_": "", "scatter_reduce": "", "scatter_reduce_": "",
    "index_reduce": "", "index_reduce_": "", "index_put_": "accumulate", "put_": "accumulate", "bincount": "weights", "histc": "",
    "ctc_loss": "", "CTCLoss": "", "grid_sample": "", "EmbeddingBag": "", "embedding_bag": "", "MaxUnpool1d": "",
    "MaxUnpool2d": "", "MaxUnpool3d": "", "AvgPool3d": "", "AdaptiveMaxPool2d": "", "FractionalMaxPool2d": "",
    "ReflectionPad1d": "", "ReflectionPad2d": "", "ReflectionPad3d": "", "kthvalue": "", "NLLLoss2d": "",
}  # fmt: skip
"""Operations that torch lists as nondeterministic on CUDA, with the argument that makes them so.

Source: https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html
"""
_SMOOTH = ("linear", "bilinear", "bicubic", "trilinear")


def operations(project: Project) -> Iterator[Finding]:
    if project.is_deterministic:
        return  # torch itself decides, and names what it lacks
    found = [call for call in project.calls if _is_atomic(call)]
    if found:
        on_cuda = torch.cuda.is_available() or any('"cuda' in "\n".join(source.text) for source in project.sources)
        yield Finding(
            "may" if on_cuda else "note",
            "script",
            "operations that are not deterministic on CUDA",
            "They add in the order in which threads come, says torch's documentation of use_deterministic_algorithms. On a CPU "
            "nearly all of them repeat themselves.",
            "Give deterministic=True to Run or Trainer: it takes their deterministic form, or names those that have none.",
            places_of(found),
        )


def _is_atomic(call: Call) -> bool:
    if call.short in ("interpolate", "Upsample"):
        mode = call.keyword("mode")
        return isinstance(mode, ast.Constant) and mode.value in _SMOOTH
    if call.short not in _ON_CUDA:
        return False
    needed = _ON_CUDA[call.short]
    return not needed or call.keyword(needed) is not None


def _assigned(project: Project, ending: str) -> list[tuple[Source, ast.Assign, object]]:
    """Assignments of a constant to an attribute such as ``torch.backends.cudnn.benchmark``."""
    return [
        (source, node, node.value.value)
        for source in project.sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and any(isinstance(t, ast.Attribute) and source.called(t).endswith(ending) for t in node.targets)
    ]


def cudnn(project: Project) -> Iterator[Finding]:
    found = [place_of(s, n) for s, n, value in _assigned(project, "cudnn.benchmark") if value is True]
    if found and not project.is_deterministic:
        yield Finding(
            "may",
            "script",
            "cuDNN chooses its algorithms by trying which is the fastest",
            "Another one may be the fastest next time, and its last bits are others.",
            "Leave torch.backends.cudnn.benchmark off, or give deterministic=True to Run or Trainer.",
            tuple(found),
        )


def reduced(project: Project) -> Iterator[Finding]:
    found = [place_of(s, n) for s, n, value in _assigned(project, "allow_tf32") if value is True]
    for call in project.calls:
        if call.short == "set_float32_matmul_precision" and not _says(call, "highest"):
            found.append(call.place)
    if found:
        yield Finding(
            "note",
            "script",
            "float32 is computed in fewer bits where the device can",
            "A CPU, or an older GPU, gives other digits than one with TF32.",
            'torch.set_float32_matmul_precision("highest") where numbers are compared between devices.',
            tuple(found),
        )


def _says(call: Call, value: str) -> bool:
    return any(isinstance(a, ast.Constant) and a.value == value for a in call.node.args)


def compiled(project: Project) -> Iterator[Finding]:
    found = [call for call in project.calls if call.name == "torch.compile" or _turns_on(call, "compile")]
    if found:
        yield Finding(
            "note",
            "script",
            "the model is compiled",
            "torch.compile makes kernels for this machine and this version; their last bits differ from those of plain torch.",
            "Compare metrics with a tolerance, or train what must repeat itself without it.",
            places_of(found),
        )


def _turns_on(call: Call, name: str) -> bool:
    value = call.keyword(name)
    return call.short == "Trainer" and isinstance(value, ast.Constant) and value.value is True
