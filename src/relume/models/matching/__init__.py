"""Names of a file and names of a model for the same tensors, brought together by evidence and never by a guess."""

from relume.models.matching.prefixes import Prefix, Prefixes, find_prefix
from relume.models.matching.propose import Ambiguity, Proposal, keeps_order, propose

__all__ = ["Ambiguity", "Prefix", "Prefixes", "Proposal", "find_prefix", "keeps_order", "propose"]
