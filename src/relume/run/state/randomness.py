"""The random number generators of the process: torch on every device, numpy, random."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from relume.generators import replace_numpy_generator, turn
from relume.run.state.values import counted

_numpy_random: Any = np.random  # its stubs lack get_bit_generator
_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_DEVICES = {"cuda": "CUDA", "xpu": "XPU"}


def random_state() -> dict[str, Any]:
    """The states of torch's (each device in use), numpy's and ``random``'s global generators, to store in a checkpoint.

    numpy's and ``random``'s waiting normal numbers are in it. A device that nothing has used yet is not.

    Cost: 0.2 ms.
    """
    with turn():
        state: dict[str, Any] = {"torch": torch.get_rng_state(), "numpy": numpy_state(), "python": python_state(random)}
    for kind in _DEVICES:
        if _is_used(kind):
            state[kind] = getattr(torch, kind).get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def load_random_state(state: Mapping[str, Any]) -> list[str]:
    """Put the global generators where they were; returns notes on devices and generators that are not the same."""
    with turn():
        torch.set_rng_state(_bytes(state["torch"]))
        notes = load_numpy_state(None, state["numpy"])
        load_python_state(random, state["python"])
    for kind in _DEVICES:
        notes += _load_devices(kind, state.get(kind, []))
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(_bytes(state["mps"]))
    elif "mps" in state:
        notes.append("random numbers: the checkpoint has an MPS device, this machine has none")
    return notes


def _load_devices(kind: str, states: list[torch.Tensor]) -> list[str]:
    if not states and not _is_used(kind):
        return []
    module = getattr(torch, kind)
    count = module.device_count() if module.is_available() else 0
    for index, state in enumerate(states[:count]):
        module.set_rng_state(_bytes(state), index)
    if count == len(states):
        return []
    common = min(count, len(states))
    rest = f"those from {kind}:{common} on " if common else "they "
    use = "keep the script's seed" if count > len(states) else "are left out"
    return [
        f"random numbers: the checkpoint has {counted(len(states), f'{_DEVICES[kind]} device')}, this machine {count}: "
        f"{rest}{use}, and what is drawn there is not what it would have been"
    ]


def _is_used(kind: str) -> bool:
    """Whether the process has begun to use that kind of device: asking for its generators would make it begin."""
    module = getattr(torch, kind, None)
    return module is not None and bool(module.is_initialized())


def _bytes(state: torch.Tensor) -> torch.Tensor:
    return state.detach().cpu().clone()


def numpy_state(generator: np.random.RandomState | None = None) -> dict[str, Any]:
    """The state of numpy's global generator or of a RandomState, whichever bit generator it has."""
    state: Any = (np.random if generator is None else generator).get_state(legacy=False)
    return dict(state)


def load_numpy_state(generator: np.random.RandomState | None, state: Mapping[str, Any]) -> list[str]:
    """Put numpy's global generator, or a RandomState, where it was; the global one changes its kind where it must."""
    name = state["bit_generator"]
    if generator is not None:
        generator.set_state(dict(state))
        return []
    if type(_numpy_random.get_bit_generator()).__name__ != name:
        if name not in _BIT_GENERATORS:
            return [f"random numbers: the checkpoint has numpy's global generator on {name}, which is not numpy's own"]
        replace_numpy_generator(getattr(np.random, name)())
    np.random.set_state(dict(state))
    return []


def python_state(generator: Any) -> dict[str, Any]:
    """The state of the module ``random`` or of a ``random.Random``, its 625 numbers as one array."""
    version, words, waiting = generator.getstate()
    return {"version": version, "words": np.array(words, dtype=np.uint32), "gauss_next": waiting}


def load_python_state(generator: Any, state: Mapping[str, Any]) -> None:
    """Put the module ``random``, or a ``random.Random``, where it was."""
    generator.setstate((state["version"], tuple(map(int, state["words"])), state["gauss_next"]))
