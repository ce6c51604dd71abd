"""What the model took the examples of a bundle for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from relume.share.described import Documents
from relume.share.documents import Example


@dataclass(frozen=True)
class Prediction:
    """One example.

    Attributes:
        raw: its picture's path in the bundle; empty where there is none.
        true: the name of its class, or its label; empty where that is not known.
        predicted: the class that got the highest score; empty where the outputs are no scores of classes.
        is_right: None where one of them is not known.
        share: the probability of the predicted class, as softmax gives it. None where outputs are no scores of classes.
    """

    raw: str
    true: str
    predicted: str
    is_right: bool | None
    share: float | None


def predictions(documents: Documents) -> list[Prediction]:
    """All examples, in their order."""
    given = documents.examples.examples if documents.examples else []
    outputs = documents.outputs if _are_scores(documents) else ()
    return [_prediction(documents.classes, one, outputs[n] if n < len(outputs) else ()) for n, one in enumerate(given)]


def _are_scores(documents: Documents) -> bool:
    """Whether each output has a number for each class."""
    widths = {len(row) for row in documents.outputs}
    count = len(documents.classes) or (len(documents.claims.confusion or ()))
    return len(widths) == 1 and count > 1 and widths == {count}


def _prediction(classes: Sequence[str], one: Example, scores: Sequence[float]) -> Prediction:
    true = "" if one.label is None else _name(classes, one.label)
    if not scores or any(math.isnan(score) for score in scores):
        return Prediction(one.raw, true, "", None, None)
    best = max(range(len(scores)), key=scores.__getitem__)
    predicted = _name(classes, best)
    return Prediction(one.raw, true, predicted, predicted == true if true else None, _share(scores))


def _share(scores: Sequence[float]) -> float | None:
    """The largest probability: as given, or as softmax makes it of logits."""
    top = max(scores)
    if not math.isfinite(top):
        return None
    if min(scores) >= 0 and math.isclose(sum(scores), 1, abs_tol=1e-3):
        return top
    return 1 / sum(math.exp(score - top) for score in scores)


def _name(classes: Sequence[str], label: int | str) -> str:
    if isinstance(label, int) and 0 <= label < len(classes):
        return classes[label]
    return str(label)
