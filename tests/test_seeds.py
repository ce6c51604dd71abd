"""Seeds that are derived from one."""

from __future__ import annotations

from relume.seeds import derive, mix


def test_derived_seeds_differ_and_repeat() -> None:
    made = {derive(s, name, n) for s in range(5) for name in ("a", "b") for n in range(50)}
    assert len(made) == 500 and all(0 <= seed < 2**63 for seed in made)
    assert len({mix(key, n) for key in range(3) for n in range(1000)}) == 3000
    assert mix(1, 2) == mix(1, 2)
