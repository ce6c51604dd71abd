"""Runs after the fact, and while they go on: read, choose, compare, draw, take out and bring in what was recorded.

Nothing here imports torch. (The package cannot be called history: it would take the place of `relume.history`.)
"""

from relume.recorded.choosing import choose, value_of
from relume.recorded.comparing import Comparison, compare
from relume.recorded.expression import Expression, parse
from relume.recorded.facts import facts_below, facts_of
from relume.recorded.plotting import plot
from relume.recorded.reading import dead_branches, history
from relume.recorded.tables import write_table

__all__ = [
    "Comparison",
    "Expression",
    "choose",
    "compare",
    "dead_branches",
    "facts_below",
    "facts_of",
    "history",
    "parse",
    "plot",
    "value_of",
    "write_table",
]
