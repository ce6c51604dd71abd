"""The environment: versions, threads, variables, torch's settings, packages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

from relume import determinism
from relume.checkup.findings import Finding
from relume.provenance.machine import packages
from relume.provenance.secrets import process_redactor
from relume.text import counted, printable

_FIRST, _NEWEST = (2, 6), (2, 14)
"""The oldest and the newest torch that relume is tested with."""
_VISION_BEHIND = 15
"""torchvision 0.(N + 15) belongs to torch 2.N: https://github.com/pytorch/vision#installation"""

_CHANGES_NUMBERS = {
    "MKL_CBWR": "which instructions MKL may use, and so the last bits of matrix products",
    "MKL_ENABLE_INSTRUCTIONS": "which instructions MKL may use, and so the last bits of matrix products",
    "ONEDNN_MAX_CPU_ISA": "which instructions oneDNN may use, and so the last bits of convolutions",
    "DNNL_MAX_CPU_ISA": "which instructions oneDNN may use, and so the last bits of convolutions",
    "ONEDNN_DEFAULT_FPMATH_MODE": "oneDNN may compute float32 in fewer bits",
    "DNNL_DEFAULT_FPMATH_MODE": "oneDNN may compute float32 in fewer bits",
    "ATEN_CPU_CAPABILITY": "which instructions torch uses, and so the last bits of sums",
    "OPENBLAS_CORETYPE": "which kernels OpenBLAS uses, and so the last bits of numpy's products",
    "NVIDIA_TF32_OVERRIDE": "whether NVIDIA's libraries round float32 to TF32, whatever torch is told",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "whether matrix products on CUDA round float32 to TF32",
    "PYTORCH_ENABLE_MPS_FALLBACK": "operations that the GPU lacks are computed on the CPU, with other last bits",
    "TORCH_CUDNN_V8_API_DISABLED": "which convolutions cuDNN chooses",
    "TORCHINDUCTOR_MAX_AUTOTUNE": "torch.compile takes the kernels that are fastest here, today",
    "NCCL_ALGO": "the order in which gradients of several GPUs are added",
    "NCCL_PROTO": "the order in which gradients of several GPUs are added",
}
"""Variables that change numbers, and how. Sources: the manuals of oneMKL, oneDNN, cuBLAS, NCCL and torch."""


def findings() -> Iterator[Finding]:
    """What was found in this process's environment."""
    yield from _versions()
    yield from _threads()
    yield from _variables(os.environ)
    yield from _settings()
    yield from _packages()


def _versions() -> Iterator[Finding]:
    found = _number(torch.__version__)
    if found < _FIRST:
        yield Finding(
            "stops",
            "environment",
            f"torch {torch.__version__} is older than relume supports ({_dotted(_FIRST)})",
            "Nothing of relume is tested with it.",
            f'pip install "torch>={_dotted(_FIRST)}"',
        )
    elif found > _NEWEST:
        yield Finding(
            "note",
            "environment",
            f"torch {torch.__version__} is newer than relume was tested with ({_dotted(_NEWEST)})",
            "Numbers may differ from those of the versions that are known.",
            "relume reproduce BUNDLE compares them",
        )
    yield from _vision(torch.__version__, _version("torchvision"))
    if torch.version.cuda is None and torch.version.hip is None and shutil.which("nvidia-smi"):
        yield Finding(
            "note",
            "environment",
            f"torch {torch.__version__} is a build without CUDA, and this machine has NVIDIA's driver",
            "It computes on the CPU, whose last bits differ from those of the GPU.",
            "pip install --force-reinstall torch, for the GPU: https://pytorch.org/get-started/locally",
        )


def _vision(torch_version: str, vision_version: str | None) -> Iterator[Finding]:
    if vision_version is None or _number(torch_version)[0] != 2 or _number(vision_version)[0] != 0:
        return
    wanted = _number(torch_version)[1] + _VISION_BEHIND
    build, other = (version.partition("+")[2] for version in (torch_version, vision_version))
    if _number(vision_version)[1] != wanted:
        yield Finding(
            "stops",
            "environment",
            f"torchvision {vision_version} does not belong to torch {torch_version}",
            "Its operations are compiled for another torch: importing it fails, or its models and transforms do.",
            f'pip install "torchvision==0.{wanted}.*"',
        )
    elif build and other and build != other:
        yield Finding(
            "stops",
            "environment",
            f"torchvision {vision_version} and torch {torch_version} are builds for different devices",
            "Operations such as non-maximum suppression are missing, or fail on the GPU.",
            f"pip install --force-reinstall torchvision, the build for {build}: https://pytorch.org/get-started/locally",
        )


def _number(version: str) -> tuple[int, int]:
    parts = [int("".join(c for c in part if c.isdigit()) or 0) for part in version.partition("+")[0].split(".")[:2]]
    return (*parts, 0, 0)[0], (*parts, 0, 0)[1]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> Iterator[Finding]:
    count, wanted = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    if wanted is None and count > 1:
        yield Finding(
            "note",
            "environment",
            f"torch takes as many threads as this machine has cores: {count}",
            "On a CPU, sums in another number of threads have other last bits, so that another machine gets others. The "
            "number is kept with each run.",
            f"export OMP_NUM_THREADS={count}, or torch.set_num_threads({count}), and tell others",
        )
    mkl = os.environ.get("MKL_NUM_THREADS")
    if wanted is not None and mkl is not None and wanted != mkl:
        yield Finding(
            "note",
            "environment",
            f"OMP_NUM_THREADS={printable(wanted, 20)} and MKL_NUM_THREADS={printable(mkl, 20)} differ",
            "Which of them holds depends on the build of torch.",
            "unset MKL_NUM_THREADS",
        )


def _variables(environment: Any) -> Iterator[Finding]:
    for name, why in _CHANGES_NUMBERS.items():
        if name in environment:
            yield Finding(
                "may",
                "environment",
                f"the environment has {name}={printable(environment[name], 40)}",
                f"It decides {why}." if why.startswith(("which", "whether", "the order")) else f"With it, {why}.",
                f"unset {name}, or tell others to set it (runs keep it)",
            )
    value = environment.get(determinism.CUBLAS)
    if value is not None and value not in determinism.CUBLAS_VALUES:
        yield Finding(
            "may",
            "environment",
            f"the environment has {determinism.CUBLAS}={printable(value, 40)}",
            "With it, matrix products on CUDA do not repeat themselves, and deterministic=True is refused.",
            f"export {determinism.CUBLAS}={determinism.CUBLAS_VALUES[0]}",
        )
    if environment.get("PYTHONHASHSEED", "random") != "random":
        yield Finding(
            "note",
            "environment",
            f"the environment has PYTHONHASHSEED={printable(environment['PYTHONHASHSEED'], 20)}",
            "It hides an order of sets that is another one at each start everywhere else.",
            "unset PYTHONHASHSEED, and sort what comes out of sets",
        )


def _settings() -> Iterator[Finding]:
    """Torch's own settings, which tell something where the training runs in this process."""
    found = determinism.numerics()
    if found["matmul_precision"] not in ("highest", "none", "ieee"):
        yield Finding(
            "note",
            "environment",
            f"matrix products of float32 have the precision {found['matmul_precision']!r}",
            "On devices that can, they are rounded to fewer bits; others compute them in full.",
            'torch.set_float32_matmul_precision("highest")',
        )
    if found["cudnn_benchmark"] and torch.version.cuda is not None:
        yield Finding(
            "may",
            "environment",
            "torch.backends.cudnn.benchmark is on",
            "cuDNN chooses each convolution's algorithm by trying which is the fastest now.",
            "give deterministic=True to Run or Trainer",
        )
    if found["default_dtype"] != "float32":
        yield Finding(
            "note",
            "environment",
            f"torch's default dtype is {found['default_dtype']}",
            "Weights that others make have float32.",
            "torch.set_default_dtype(torch.float32), or set it in the script that others run",
        )


def _packages() -> Iterator[Finding]:
    local = sorted(name for name, version in packages(process_redactor()).items() if "(file:" in version)
    if local:
        shown = ", ".join(printable(name, 40) for name in local[:6]) + (", …" if len(local) > 6 else "")
        yield Finding(
            "may",
            "packages",
            f"{counted(len(local), 'package')} installed from this machine's own files: {shown}",
            "A version that is only here names nothing that others can install.",
            'install them from an index or a commit: pip install "NAME @ git+https://…@COMMIT"',
        )
