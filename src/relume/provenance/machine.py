"""The machine and the packages. Asking for the GPUs never initialises CUDA, and nothing here imports torch."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from relume.provenance.record import Machine
from relume.provenance.secrets import Redactor

_VARIABLES = re.compile(
    r"CUDA_(VISIBLE_DEVICES|LAUNCH_BLOCKING|DEVICE_ORDER|MODULE_LOADING)|(OMP|MKL|OPENBLAS|NUMEXPR)_NUM_THREADS|CUBLAS_WORKSPACE_CONFIG"
    r"|PYTORCH_(CUDA_ALLOC_CONF|ALLOC_CONF|ENABLE_MPS_FALLBACK|NO_CUDA_MEMORY_CACHING)|TORCH_(LOGS|COMPILE_DISABLE|CUDNN_V8_API_DISABLED)"
    r"|NCCL_(DEBUG|P2P_DISABLE|IB_DISABLE|SOCKET_IFNAME|ALGO)|NVIDIA_TF32_OVERRIDE|HSA_OVERRIDE_GFX_VERSION|HIP_VISIBLE_DEVICES"
    r"|PYTHON(HASHSEED|PATH|OPTIMIZE|UTF8)|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|MASTER_(ADDR|PORT)"
    r"|SLURM_(JOB_ID|JOB_NAME|JOB_NODELIST|NNODES|NTASKS|PROCID|ARRAY_JOB_ID|ARRAY_TASK_ID)|CONDA_DEFAULT_ENV|VIRTUAL_ENV"
    r"|MKL_(CBWR|ENABLE_INSTRUCTIONS)|(ONEDNN|DNNL)_(MAX_CPU_ISA|DEFAULT_FPMATH_MODE)|ATEN_CPU_CAPABILITY|OPENBLAS_CORETYPE"
    r"|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE|TORCHINDUCTOR_(DETERMINISTIC|MAX_AUTOTUNE)|NCCL_PROTO"
    r"|RELUME_(ROOT|EVERY|TRACKERS|PROVENANCE)|LANG|LC_ALL|TZ"
)
"""The only variables of the environment that are kept."""

_SMI = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version,uuid", "--format=csv,noheader,nounits")


def variables(redactor: Redactor, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of a short list that matter to a training."""
    return {name: redactor.text(value) for name, value in sorted(environment.items()) if _VARIABLES.fullmatch(name)}


def is_kept(name: str) -> bool:
    """Whether a variable of the environment is among those that runs keep."""
    return _VARIABLES.fullmatch(name) is not None


@functools.cache
def _fixed() -> dict[str, Any]:
    """What does not change while the process lives."""
    gpus, driver = _gpus()
    torch = sys.modules.get("torch")
    version = getattr(torch, "version", None)
    return {
        "host": platform.node(),
        "system": _system(),
        "python": sys.version.split()[0],
        "interpreter": f"{platform.python_implementation()} {sys.executable}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus,
        "driver": driver,
        "cuda": str(getattr(version, "cuda", None) or getattr(version, "hip", None) or ""),
        "cudnn": _cudnn(torch),
    }


def machine(threads: int | None = None) -> Machine:
    """Operating system, interpreter, processor, memory, GPUs and their driver."""
    return Machine(**_fixed(), threads=threads)


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    return f"{name or platform.system()} ({platform.platform(aliased=True)})"


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _cudnn(torch: Any) -> str:
    if not getattr(getattr(torch, "version", None), "cuda", None):
        return ""
    try:
        return str(torch.backends.cudnn.version() or "")
    except Exception:
        return ""


def _gpus() -> tuple[list[dict[str, Any]], str]:
    """Names and memory, and the driver: from NVML, else from nvidia-smi. Neither makes a CUDA context."""
    try:
        return _by_nvml()
    except Exception:  # no driver, no GPU, or no such package
        pass
    try:
        done = subprocess.run(_SMI, capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return [], ""
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 3]
    gpus = [{"name": r[0], "memory_bytes": int(r[1]) << 20 if r[1].isdigit() else None, "uuid": r[3]} for r in rows]
    return gpus, rows[0][2] if rows else ""


def _by_nvml() -> tuple[list[dict[str, Any]], str]:
    import pynvml

    pynvml.nvmlInit()
    try:
        found = []
        for number in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            entry = {"name": _text(pynvml.nvmlDeviceGetName(handle)), "uuid": _text(pynvml.nvmlDeviceGetUUID(handle))}
            found.append(entry | {"memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)})
        return found, _text(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


_DISTRIBUTION = re.compile(r"([A-Za-z0-9][\w.]*)-([^-]+)(?:-py\d.*)?\.(?:dist|egg)-info")
_packages: dict[tuple[str, ...], dict[str, str]] = {}


def packages(redactor: Redactor, path: Iterable[str] | None = None) -> dict[str, str]:
    """Installed packages with their versions, by the names of their folders: quicker than reading what stands in them.

    One that was installed from a folder or a repository has it behind its version.
    """
    places = tuple(sys.path if path is None else path)
    if places in _packages:
        return _packages[places]
    found: dict[str, str] = {}
    for place in places:
        try:
            entries = list(os.scandir(place or "."))
        except OSError:
            continue
        for entry in entries:
            match = _DISTRIBUTION.fullmatch(entry.name)
            if match is not None:
                name = re.sub(r"[-_.]+", "-", match[1]).lower()
                found.setdefault(name, match[2] + redactor.text(_origin(Path(entry.path))))
    _packages[places] = dict(sorted(found.items()))
    return _packages[places]


def _origin(folder: Path) -> str:
    """For a package that comes from no index: from where (PEP 610)."""
    try:
        direct = json.loads((folder / "direct_url.json").read_text())
        commit = direct.get("vcs_info", {}).get("commit_id", "")
        return f" ({direct['url']}{'@' + commit if commit else ''})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
