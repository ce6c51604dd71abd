"""What differs between where a model was trained and here. Differences explain; by themselves they are no failure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch

from relume.share.documents import Environment
from relume.share.reproduce.verdicts import Row, Stage, Verdict

NUMERIC = ("torch", "numpy", "torchvision", "timm", "torchmetrics", "safetensors", "pillow", "relume")
"""Packages that numbers come from; each has a row of its own."""

_MAX_NAMED = 6
_MAX_THREADS = 256


def environment_here() -> Environment:
    """This machine and what is installed, in the words of ``environment.json``; no host, user or path."""
    from relume.provenance.machine import machine, packages
    from relume.provenance.secrets import Redactor
    from relume.version import __version__

    own = machine(torch.get_num_threads())
    installed = {name: version.split(" (")[0] for name, version in packages(Redactor()).items()}
    gpus = [str(gpu.get("name", "")) for gpu in own.gpus]
    return Environment(
        python=own.python,
        system=own.system,
        packages={**installed, "relume": __version__},
        device="cuda" if torch.cuda.is_available() else "cpu",
        cpu=own.cpu,
        threads=own.threads,
        gpus=gpus,
        cuda=own.cuda,
        cudnn=own.cudnn,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def environment_stage(author: Environment, here: Environment) -> Stage:
    """Python, processor, GPUs, threads, and the packages."""
    rows = [
        _row("python", author.python, here.python),
        _row("system", author.system, here.system),
        _row("processor", author.cpu, here.cpu),
        _row("threads", _text(author.threads), _text(here.threads)),
        _row("GPUs", _gpus(author), _gpus(here)),
        _row("CUDA", _cuda(author), _cuda(here)),
    ]
    for name in NUMERIC:
        if name in author.packages:
            rows.append(_row(name, _version(author.packages[name]), here.packages.get(name, "not installed")))
    if rest := _others(author.packages, here.packages):
        rows.append(rest)
    why = "Another environment is no difference of the result: it is the first reason to look at where numbers differ."
    return Stage(name="environment", rows=rows, tolerance=why)


def same_arithmetic(author: Environment, here: Environment) -> str:
    """Why a training here need not give the author's bits; empty where it must.

    The last digits of sums depend on torch's build, the processor's instructions, the number of threads, and, on a GPU,
    on the order in which its threads come.
    """
    device = author.device.split(":")[0] or "cpu"
    if device != "cpu":
        if not (author.gpus and torch.cuda.is_available()):
            return f"it was trained on {device}, and there is none such here"
        if _gpus(author) != _gpus(here) or _cuda(author) != _cuda(here):
            return f"it was trained on {_gpus(author)} ({_cuda(author)}), and here is {_gpus(here)} ({_cuda(here)})"
        if not author.deterministic:
            return f"it was trained on {device} without deterministic algorithms, which give other digits each time"
    if not author.packages.get("torch") or not author.cpu:
        return "the environment of the training is not known"
    theirs, ours = _version(author.packages["torch"]), here.packages.get("torch", "")
    if theirs != ours:
        return f"it was trained with torch {theirs}, and here is {ours or 'another'}"
    if author.cpu != here.cpu:
        return f"it was trained on another processor ({author.cpu}; here is {here.cpu})"
    return ""


@contextlib.contextmanager
def threads_of(count: object) -> Iterator[None]:
    """Compute with as many threads as the author did: sums are divided among them, and their last digits with them."""
    before = torch.get_num_threads()
    if type(count) is int and 0 < count <= _MAX_THREADS and count != before:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _row(claim: str, claimed: str, found: str) -> Row:
    if not claimed:
        return Row(claim=claim, found=found, verdict=Verdict.UNCHECKED, why="the bundle does not say")
    if claimed == found:
        return Row(claim=claim, claimed=claimed, found=found, verdict=Verdict.EXACT)
    why = f"{claimed:.80} there, {found or 'none':.80} here"
    return Row(claim=claim, claimed=claimed, found=found or "none", verdict=Verdict.DIFFERENT, why=why)


def _others(author: Mapping[str, str], here: Mapping[str, str]) -> Row | None:
    rest = {name: _version(version) for name, version in author.items() if name not in NUMERIC}
    if not rest:
        return None
    unlike = [f"{n} {v} ({here.get(n, 'not installed')} here)" for n, v in sorted(rest.items()) if here.get(n) != v]
    if not unlike:
        text = f"{len(rest)} versions"
        return Row(claim="other packages", claimed=text, found="the same", verdict=Verdict.EXACT)
    more = f" and {len(unlike) - _MAX_NAMED} more" if len(unlike) > _MAX_NAMED else ""
    return Row(
        claim="other packages",
        claimed=f"{len(rest)} versions",
        found=f"{len(unlike)} differ",
        verdict=Verdict.DIFFERENT,
        why=", ".join(unlike[:_MAX_NAMED]) + more,
    )


def _version(text: str) -> str:
    return text.split(" (")[0]


def _gpus(environment: Environment) -> str:
    return ", ".join(environment.gpus) or "none"


def _cuda(environment: Environment) -> str:
    parts = [environment.cuda and f"CUDA {environment.cuda}", environment.cudnn and f"cuDNN {environment.cudnn}"]
    return ", ".join(filter(None, parts)) or "none"


def _text(value: object) -> str:
    return "" if value is None else str(value)
