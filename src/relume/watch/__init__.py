"""Watchers: what goes on inside of a training, beside its loss. Each is given as ``Run(..., watch=[...])``."""

from relume.run.system import System
from relume.watch.dead import DeadUnits
from relume.watch.health import GradientHealth
from relume.watch.nonfinite import NonFinite
from relume.watch.rates import LearningRates
from relume.watch.speed import Speed
from relume.watch.watch import Watch

__all__ = ["DeadUnits", "GradientHealth", "LearningRates", "NonFinite", "Speed", "System", "Watch"]
