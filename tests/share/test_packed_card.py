"""The card of a bundle that was really trained and packed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from rocrate.rocrate import ROCrate
from torch import nn
from torch.utils.data import DataLoader, Subset

import relume
from relume import datasets
from relume.errors import ConfigurationError
from relume.share.bundle import Bundle
from relume.share.card import Documents, card_files
from relume.share.pack import pack


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An MLP after one epoch on the first 2,000 images of Fashion-MNIST."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELUME_PROVENANCE", "off")
        folder = tmp_path_factory.mktemp("clothes")
        split = datasets.load("fashion-mnist", quiet=True)
        torch.manual_seed(0)
        model = relume.build(nn.Sequential, nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
        trainer = relume.Trainer(
            model,
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam(model.parameters()),
            metrics={"accuracy": relume.accuracy},
            device="cpu",
            quiet=True,
        )
        val = Subset(split.test, range(500))
        config = {"dataset": "fashion-mnist", "classes": list(split.classes), "note": "<script>alert(1)</script>"}
        trainer.fit(
            DataLoader(Subset(split.train, range(2000)), 50, shuffle=True),
            DataLoader(val, 250),
            epochs=2,
            run="clothes",
            root=folder,
            config=config,
        )
        pack("clothes", folder / "clothes.relume", root=folder, data=val, intended_use="To learn.", authors=["Ann Lee"])
    return Bundle.open(folder / "clothes.relume")


def test_its_card_is_that_of_its_documents(bundle: Bundle) -> None:
    sizes = {one.path: one.size_bytes for one in bundle.manifest.members}
    beside = {path for path in sizes if path in ("README.md", "CITATION.cff", "ro-crate-metadata.json")}
    made = card_files(
        Documents.read(bundle), {p: n for p, n in sizes.items() if p not in beside and "pictures/" not in p}
    )
    assert {path: bundle.read(path) for path in made} == made


def test_its_header_claims_what_was_measured(bundle: Bundle) -> None:
    card = ModelCard(bundle.read("README.md").decode())
    claimed = json.loads(bundle.read("metrics.json"))["claims"]
    values = {one.metric_value for one in card.data.eval_results}
    assert values and values <= {claim["value"] for claim in claimed}
    assert "## Intended use\n\nTo learn.\n" in card.text and "**intended use**" not in card.text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.text)
    kinds = {inner.type for token in tokens for inner in (token, *(token.children or ()))}
    assert "<script>" in card.text and not [kind for kind in kinds if kind.startswith("html")]


def test_its_pictures_can_be_seen(bundle: Bundle) -> None:
    for what in ("curves", "confusion", "examples"):
        assert Image.open(io.BytesIO(bundle.read(f"pictures/{what}.png"))).width > 600


def test_its_crate_lists_every_file_with_size_and_digest(bundle: Bundle, tmp_path: Path) -> None:
    for path in bundle.members():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bundle.read(path))
    (tmp_path / "manifest.json").write_bytes(bundle.manifest.text())
    read = ROCrate(tmp_path)
    listed = {one.id: one for one in read.data_entities}
    members = {one.path: one for one in bundle.manifest.members if one.path != "ro-crate-metadata.json"}
    assert set(listed) == {*members, "manifest.json"}
    for path, member in members.items():
        assert listed[path]["contentSize"] == str(member.size_bytes)
        assert listed[path]["identifier"] == f"blake3:{member.blake3}"


@pytest.mark.parametrize("name", ["title", "licence", "citation", "intended_use", "limitations", "ethics"])
def test_words_of_the_author_are_texts(bundle: Bundle, name: str) -> None:
    options: Any = {name: 5}
    with pytest.raises(ConfigurationError, match=f"{name}=5 is a int: give a text"):
        pack("clothes", root=bundle.path.parent, **options)
