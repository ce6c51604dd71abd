"""Checking what a bundle claims, stage by stage, and training it again."""

from relume.share.reproduce.checking import reproduce
from relume.share.reproduce.verdicts import Reproduction, Row, Stage, Verdict

__all__ = ["Reproduction", "Row", "Stage", "Verdict", "reproduce"]
