"""Deterministic algorithms: the settings of torch, cuBLAS and cuDNN that decide whether the same program gives the same bits.

What is deterministic without them: on a CPU, nearly all of torch for a fixed number of threads and one build of it. What is
not, says torch (``torch.use_deterministic_algorithms`` lists them): on a CPU, several threads that add into one place
(``index_put_`` and ``put_`` with ``accumulate=True``, the gradient of indexing with tensors); on CUDA, whatever adds with
atomics (``scatter_add_``, ``index_add_``, gradients of embeddings, of indexing, of pooling and of interpolation),
convolutions whose algorithm cuDNN chooses by trying (``benchmark``), and matrix products of cuBLAS on several streams.

What they never give: the same bits on another kind of processor or GPU, with another number of threads, or with another
version of torch, CUDA or MKL. TF32 and other reduced precisions are deterministic; they are recorded, not changed.

Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html;
https://docs.nvidia.com/cuda/cublas/#results-reproducibility
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, Literal

import torch

from relume.errors import ConfigurationError, DeterminismError

Deterministic = bool | Literal["warn"]
"""``True``: an operation without a deterministic form is an error. ``"warn"``: it is a warning of torch's."""

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_VALUES = (":4096:8", ":16:8")
"""What cuBLAS repeats itself with. The first takes 24 MB of a GPU's memory, the second is slower."""
_INDUCTOR = "TORCHINDUCTOR_DETERMINISTIC"  # read when torch.compile is imported
_VARIABLES = (CUBLAS, _INDUCTOR)

_REMEDIES = {
    r"put_$": "assign by index instead (x.view(-1)[index] = values), or put_(…, accumulate=True) on the CPU",
    r"upsample|interpolat": 'interpolate with mode="nearest" (on CUDA, bilinear in two dimensions has a deterministic form)',
    r"adaptive_avg_pool": "where the output is one value a channel, x.mean((-2, -1)) is the same; else a plain AvgPool2d",
    r"nll_loss2d": "bring the classes last and flatten: cross_entropy(logits.movedim(1, -1).flatten(0, -2), target.flatten())",
    r"ctc_loss": "compute this loss on the CPU",
    r"histc|bincount|kthvalue|median": "compute it on the CPU: it is rarely what takes the time",
    r"reflection_pad": 'pad with mode="constant", or with mode="replicate"',
    r"cumsum": "compute it on the CPU, or in whole numbers",
}
"""By torch's name of the operation."""

SAID = "deterministic algorithms are on: the same bits at each start on such a machine, and some operations take longer"
"""What a run says of them when it starts."""

_LACKING = re.compile(r"(\S+) does not have a deterministic implementation")
_BLAS = re.compile(r"it uses CuBLAS")


def checked(value: Any) -> Deterministic:
    """Raises ConfigurationError unless ``value`` is True, False or ``"warn"``."""
    if value is True or value is False or value == "warn":
        found: Deterministic = value
        return found
    raise ConfigurationError(f'deterministic must be True, False or "warn", not {value!r}.')


def turn_on(mode: Deterministic = True) -> str:
    """Turn deterministic algorithms on for the rest of the process; returns what stands in their way, in words, or "".

    Changes torch's own settings, and ``CUBLAS_WORKSPACE_CONFIG`` where it is not set. cuBLAS reads that when CUDA's first
    matrix product is made: a process that has used CUDA before cannot be sure, which the text says.

    Raises:
        ConfigurationError: ``CUBLAS_WORKSPACE_CONFIG`` is set to something with which cuBLAS does not repeat itself.
    """
    wanted, has_cuda = os.environ.get(CUBLAS), torch.version.cuda is not None
    if has_cuda and wanted is not None and wanted not in CUBLAS_VALUES:
        raise ConfigurationError(
            f"deterministic={mode!r}: the environment has {CUBLAS}={wanted}, with which cuBLAS does not repeat itself. "
            f"Unset it, or set it to {CUBLAS_VALUES[0]}."
        )
    problem = ""
    if wanted is None:
        if has_cuda and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            problem = (
                f"CUDA was in use before deterministic={mode!r} came, and {CUBLAS} was not set: matrix products may differ "
                f"from run to run. Start the process with {CUBLAS}={CUBLAS_VALUES[0]}, or call "
                "relume.seed_everything(seed, deterministic=True) first of all"
            )
        os.environ[CUBLAS] = CUBLAS_VALUES[0]
    os.environ[_INDUCTOR] = "1"
    # Not torch.use_deterministic_algorithms: that imports the whole compiler, which takes a second (torch 2.14).
    torch.set_deterministic_debug_mode("warn" if mode == "warn" else "error")
    _set_inductor(True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    return problem


def _set_inductor(value: bool) -> None:
    config = sys.modules.get("torch._inductor.config")
    if hasattr(config, "deterministic"):
        config.deterministic = value  # type: ignore[union-attr]


def _settings() -> dict[str, Any]:
    """What :func:`turn_on` changes."""
    config = sys.modules.get("torch._inductor.config")
    return {
        "mode": torch.get_deterministic_debug_mode(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "inductor": bool(getattr(config, "deterministic", os.environ.get(_INDUCTOR) == "1")),
        "variables": {name: os.environ.get(name) for name in _VARIABLES},
    }


def _put_back(settings: dict[str, Any]) -> None:
    torch.set_deterministic_debug_mode(settings["mode"])
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = settings["cudnn"]
    torch.utils.deterministic.fill_uninitialized_memory = settings["fill"]  # type: ignore[attr-defined]
    _set_inductor(settings["inductor"])
    for name, value in settings["variables"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


_lock = threading.Lock()
_open: list[object] = []
_before: dict[str, Any] = {}


@contextlib.contextmanager
def held(mode: Deterministic) -> Iterator[str]:
    """Deterministic algorithms while the block lasts; ``False`` leaves all as it is. Gives the text of :func:`turn_on`.

    The settings from before the first open block come back behind the last one, in whichever order blocks end: they hold
    for the whole process.
    """
    if not mode:
        yield ""
        return
    token = object()
    with _lock:
        if not _open:
            _before.clear()
            _before.update(_settings())
        try:
            problem = turn_on(mode)
        except BaseException:
            if not _open:
                _put_back(_before)
            raise
        _open.append(token)
    try:
        yield problem
    finally:
        with _lock:
            _open.remove(token)
            if not _open:
                _put_back(_before)


@contextlib.contextmanager
def explained(mode: Deterministic) -> Iterator[None]:
    """:func:`held`, with torch's error for an operation without a deterministic form in relume's words."""
    with held(mode):
        try:
            yield
        except RuntimeError as error:
            found = understood(error)
            if found is None:
                raise
            raise found from error


def understood(error: BaseException | None) -> DeterminismError | None:
    """Torch's error for an operation that has no deterministic form, in relume's words; None for any other error.

    Example:
        >>> error = RuntimeError("put_ does not have a deterministic implementation, but you set ...")
        >>> print(str(understood(error))[:46])
        put_ has no deterministic form on this device,
    """
    if not isinstance(error, RuntimeError) or isinstance(error, DeterminismError):
        return None
    text = str(error)
    if _BLAS.search(text):
        found = DeterminismError(
            f"a matrix product on CUDA is not deterministic, because {CUBLAS} was not set in time. Start the process with "
            f"{CUBLAS}={CUBLAS_VALUES[0]}."
        )
    elif match := _LACKING.match(text):
        name = match[1]
        remedy = next((remedy for pattern, remedy in _REMEDIES.items() if re.search(pattern, name)), None)
        instead = f"Instead: {remedy}. " if remedy else "Use another operation, or compute it on the CPU. "
        found = DeterminismError(
            f"{name} has no deterministic form on this device, and deterministic=True was asked for. {instead}"
            'With deterministic="warn" it runs as it is, with a warning, and the results may differ from run to run.'
        )
    else:
        return None
    found.__cause__ = error
    return found


def numerics() -> dict[str, Any]:
    """The settings that decide over the last bits of results, as they are now: for a run's files.

    Example:
        >>> numerics()["deterministic"], numerics()["matmul_precision"]
        (False, 'highest')
    """
    cudnn = torch.backends.cudnn
    return {
        "deterministic": (False, "warn", True)[torch.get_deterministic_debug_mode()],
        "fill_uninitialized_memory": bool(torch.utils.deterministic.fill_uninitialized_memory),  # type: ignore[attr-defined]
        "matmul_precision": _precision(torch.get_float32_matmul_precision, "torch.backends.cuda.matmul"),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "cudnn_deterministic": bool(cudnn.deterministic),
        "cudnn_benchmark": bool(cudnn.benchmark),
        "cudnn_tf32": _precision(lambda: str(bool(cudnn.allow_tf32)), "torch.backends.cudnn.conv"),
        "cublas_workspace": os.environ.get(CUBLAS, ""),
    }


def _precision(old: Any, new: str) -> str:
    """A precision by torch's older name of it, which fails where a program has set it by the newer one (torch 2.9)."""
    try:
        return str(old())
    except RuntimeError:
        place: Any = torch
        for name in new.split(".")[1:]:
            place = getattr(place, name, None)
        return str(getattr(place, "fp32_precision", "unknown"))


_ON_ANY_DEVICE = ("deterministic", "matmul_precision", "default_dtype")
_ON_CUDA = ("cudnn_deterministic", "cudnn_benchmark", "cudnn_tf32", "cublas_workspace")


def differences(before: Any, device: str) -> list[str]:
    """What of :func:`numerics` differs from what a checkpoint has of it, in words; nothing for one that has none of it."""
    if not isinstance(before, dict):
        return []
    now = numerics()
    names = _ON_ANY_DEVICE + (_ON_CUDA if device.startswith("cuda") else ())
    return [
        f"{name}: {_said(before[name])} before, {_said(now[name])} now: the last bits may differ"
        for name in names
        if name in before and before[name] != now[name]
    ]


def _said(value: Any) -> str:
    return {True: "on", False: "off", "": "not set"}.get(value, str(value))
