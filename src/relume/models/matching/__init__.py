"""Names of a file and names of a model for the same tensors, brought together by evidence and never by a guess."""

from relume.models.matching.prefixes import Prefix, Prefixes, find_prefix
from relume.models.matching.propose import Ambiguity, Proposal, keeps_order, propose
from relume.models.matching.shifts import Shift, find_shifts

__all__ = [
    "Ambiguity",
    "Prefix",
    "Prefixes",
    "Proposal",
    "Shift",
    "find_prefix",
    "find_shifts",
    "keeps_order",
    "propose",
]
