"""All rules about a script's source. It is read as text and never run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from relume.checkup import numbers, order, others, seeds
from relume.checkup.findings import Finding
from relume.checkup.imports import imported
from relume.checkup.project import Project


def unread(project: Project) -> Iterator[Finding]:
    for path in project.unread:
        yield Finding(
            "stops",
            "script",
            f"{path.name} cannot be read as Python",
            "It does not start with this version of Python.",
            f"python -m py_compile {path.name} says where",
        )


RULES: tuple[Callable[[Project], Iterator[Finding]], ...] = (
    unread,
    seeds.no_seed,
    seeds.late_seed,
    seeds.seeds_of_chance,
    seeds.unseeded_generators,
    order.sets,
    order.hashes,
    order.listings,
    order.loaders,
    order.of_workers,
    numbers.operations,
    numbers.cudnn,
    numbers.reduced,
    numbers.compiled,
    others.pickles,
    others.absolute_paths,
    others.evaluation,
    others.defaults,
    imported,
)


def findings(project: Project) -> Iterator[Finding]:
    """All that the rules find, in the order of the rules."""
    for rule in RULES:
        yield from rule(project)
