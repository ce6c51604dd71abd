"""The machine's load: processors, memory, disk, and GPUs where there are any. Nothing here imports torch."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

Readings = dict[str, float]


class Machine:
    """Measures this machine and this process, with the processes it has started (such as a loader's workers).

    Args:
        folder: the disk that holds it is the one that is measured.

    Example:
        >>> readings = Machine(Path(".")).read()
        >>> 0 < readings["memory_percent"] < 100, readings["process_memory_bytes"] > 1e6
        (True, True)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = psutil.Process()
        self._children: dict[int, psutil.Process] = {}
        self._gpus = Gpus()
        psutil.cpu_percent()  # the first call gives 0: what is measured is the time between two
        self._process.cpu_percent()

    def read(self) -> Readings:
        """Shares in percent and sizes in bytes; those of processors are means since the call before."""
        family = [self._process, *self._workers()]
        found = {"cpu_percent": psutil.cpu_percent(), "memory_percent": psutil.virtual_memory().percent}
        found["process_cpu_percent"] = sum(_attempt(one.cpu_percent) for one in family)  # 100 is one processor
        found["process_memory_bytes"] = sum(_attempt(one.memory_info, "rss") for one in family)
        try:
            disk = psutil.disk_usage(str(self._folder))
            found |= {"disk_percent": disk.percent, "disk_free_bytes": float(disk.free)}
        except OSError:
            pass
        return found | self._gpus.read()

    def close(self) -> None:
        self._gpus.close()

    def _workers(self) -> list[psutil.Process]:
        try:
            alive = {child.pid: child for child in self._process.children(recursive=True)}
        except (psutil.Error, OSError):
            return []
        for pid in self._children.keys() - alive.keys():
            del self._children[pid]
        for pid, child in alive.items():
            self._children.setdefault(pid, child)  # the same object: it remembers when it was asked last
        return list(self._children.values())


def _attempt(read: Callable[[], Any], part: str | None = None) -> float:
    try:
        found = read()
        return float(found if part is None else getattr(found, part))
    except (psutil.Error, OSError):  # it has just ended
        return 0.0


class Gpus:
    """The GPUs that this process may use, through NVIDIA's own library (the package ``nvidia-ml-py``), if both are there.

    They are asked from outside: no CUDA context is made and nothing of the training is waited for.
    """

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: dict[int, Any] = {}
        if not Path("/dev/nvidiactl").exists() and os.name == "posix" and "microsoft" not in os.uname().release.lower():
            return
        try:
            library: Any = importlib.import_module("pynvml")
            library.nvmlInit()
        except Exception:  # not installed, or no driver that it understands
            return
        self._library = library
        for number in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(number)
            if _is_visible(number, str(_text(library.nvmlDeviceGetUUID(handle)))):
                self._handles[number] = handle

    def read(self) -> Readings:
        library = self._library
        found: Readings = {}
        for number, handle in self._handles.items():
            for name, ask in _asked(library).items():
                try:
                    found[f"gpu{number}/{name}"] = float(ask(handle))
                except Exception:  # a device need not tell everything
                    continue
        return found

    def close(self) -> None:
        if self._library is not None:
            self._library.nvmlShutdown()
            self._library, self._handles = None, {}


def _asked(library: Any) -> dict[str, Callable[[Any], float]]:
    """What is asked of a GPU, by the name of the measurement."""

    def memory_percent(handle: Any) -> float:
        memory = library.nvmlDeviceGetMemoryInfo(handle)
        return 100.0 * float(memory.used) / float(memory.total)

    return {
        "percent": lambda handle: library.nvmlDeviceGetUtilizationRates(handle).gpu,
        "memory_bytes": lambda handle: library.nvmlDeviceGetMemoryInfo(handle).used,
        "memory_percent": memory_percent,
        "temperature_celsius": lambda handle: library.nvmlDeviceGetTemperature(handle, 0),
        "power_watts": lambda handle: library.nvmlDeviceGetPowerUsage(handle) / 1000,
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_visible(number: int, uuid: str) -> bool:
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return True
    names = [name.strip() for name in wanted.split(",")]
    return str(number) in names or any(name and uuid.startswith(name) for name in names if not name.isdecimal())
