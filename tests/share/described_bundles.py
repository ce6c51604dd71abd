"""Documents of bundles, full and hostile, for the tests of cards and crates."""

from __future__ import annotations

import io
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from pydantic import BaseModel

from relume.share.card import Documents
from relume.share.documents import (
    Ancestor,
    Claim,
    Claims,
    CodeFacts,
    Data,
    DataSet,
    Environment,
    Evaluation,
    Example,
    Examples,
    Lineage,
    Model,
    Preprocessing,
    RunFacts,
    SourceEntry,
)

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress"]
SIZES = {"model.safetensors": 941_000, "config.json": 900, "code/train.py": 10, "examples/000.png": 300}
_Document = TypeVar("_Document", bound=BaseModel)


def picture(shade: int, size: int = 8) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((size, size), shade, dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def full() -> Documents:
    """Everything that a run could tell."""
    curve = [(step, step // 10, 2.0 / (1 + step / 20)) for step in range(10, 101, 10)]
    evaluations = [
        Evaluation(data=1, metrics={"val/accuracy": "accuracy"}, batch_size=64, command=["relume", "train"], seed=3),
        Evaluation(data=2, where="packing", batch_size=256, environment={"torch": "2.14.0", "threads": 1}),
    ]
    claims = [
        Claim(name="val/accuracy", value=0.87, evaluation=0, tolerance=1e-5),
        Claim(name="val/loss", value=0.4123456789012345, evaluation=0, tolerance=1e-5),
        Claim(name="accuracy", value=0.8712000131607056, evaluation=1),
    ]
    return Documents(
        name="fashion",
        relume="0.9.1",
        model=Model(architectures=["MLP"], parameters=235_146, document={"recipe": {}}, weights_digest="ab" * 32),
        preprocessing=Preprocessing(kind="image", settings={"size": 28, "mean": [0.5]}, classes=CLASSES),
        run=RunFacts(
            name="fashion",
            checkpoint="000012",
            epoch=7,
            step=70,
            created=1_700_000_000.25,
            seconds=61.0,
            status="finished",
            seed=0,
            command=["relume", "train", "--model", "mlp"],
            config={"lr": 1e-3, "optimizer": {"name": "adam", "betas": [0.9, 0.99]}},
            title="Clothes told apart",
            authors=["Ada Lovelace (0000-0002-1825-0097)", "Clothing Group"],
            licence="MIT",
            notes="A first try.",
        ),
        claims=Claims(
            claims=claims,
            evaluations=evaluations,
            curves={"train/loss": curve, "val/loss": curve[1:], "val/accuracy": curve, "lr": curve},
            confusion=[[8, 1, 0, 0], [0, 9, 0, 0], [0, 2, 7, 0], [0, 0, 0, 5]],
        ),
        data=Data(
            sets=[
                DataSet(role="train", kind="named", name="fashion-mnist", split="train", samples=2000, fingerprint="cd" * 32),
                DataSet(role="val", kind="named", name="fashion-mnist", split="val", samples=400, covers="all raw pixels"),
                DataSet(role="test", kind="named", name="fashion-mnist", split="test", samples=10_000, licence="MIT"),
            ]
        ),
        environment=Environment(
            python="3.11.9", system="Linux", packages={"torch": "2.14.0", "relume": "0.9.1", "rich": "14"}, cpu="EPYC"
        ),
        lineage=Lineage(
            ancestors=[
                Ancestor(name="timm/mlp a1", url="https://huggingface.co/timm/mlp.a1", licence="apache-2.0", digest="12" * 32)
            ]
        ),
        examples=Examples(
            call={},
            output={"tensor": "output"},
            examples=[Example(raw=f"examples/{i:03}.png", label=i, index=i) for i in range(4)],
            batch_size=4,
        ),
        code=CodeFacts(
            commit="a" * 40,
            remote="https://example.org/a/b",
            files=[SourceEntry(path="train.py", size_bytes=10)],
            script="train.py",
        ),
        raw={f"examples/{i:03}.png": picture(60 * i) for i in range(4)},
        outputs=[[5.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0], [0.0, 5.0, 1.0, 0.0], [0.0, 0.0, 0.0, 5.0]],
    )  # fmt: skip


def filled_with(text: str) -> Documents:
    """The same, with other people's ``text`` wherever a text may stand."""
    known = full()
    parts: dict[str, Any] = {
        name: _with(getattr(known, name), text)
        for name in ("model", "preprocessing", "run", "claims", "data", "lineage", "environment", "examples", "code")
    }
    raw = {one.raw: picture(9) for one in parts["examples"].examples}
    return Documents(name=text[:190] or "x", relume=text, raw=raw, outputs=known.outputs, **parts)


_KEPT = {"kind", "where", "format", "precision", "device", "role"}


def _with(document: _Document, text: str) -> _Document:
    return type(document).model_validate(_replaced(document.model_dump(), text))


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, dict):
        return {
            (key if key in _FIELDS else text): (item if key in _KEPT else _replaced(item, text))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_replaced(item, text) for item in value]
    return text if isinstance(value, str) else value


_FIELDS = {
    name
    for kind in (Model, Preprocessing, RunFacts, Claims, Claim, Evaluation, Data, DataSet, Lineage, Ancestor, Environment,
                 Examples, Example, CodeFacts, SourceEntry)
    for name in kind.model_fields
} | {"train/loss", "val/loss"}  # fmt: skip
