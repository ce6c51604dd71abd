"""Training: the Trainer, callbacks, metrics, evaluation and prediction."""

from relume.train.callbacks import Callback
from relume.train.evaluation import evaluate, predict
from relume.train.metrics import accuracy
from relume.train.result import Result
from relume.train.trainer import Trainer

__all__ = ["Callback", "Result", "Trainer", "accuracy", "evaluate", "predict"]
