"""ro-crate-metadata.json, by the rules of RO-Crate 1.2."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from described_bundles import SIZES, filled_with, full
from rocrate.rocrate import ROCrate

from relume.errors import MissingPackageError
from relume.share.card import Documents
from relume.share.crate import crate
from relume.share.documents import RunFacts
from relume.share.manifest import Member

TEXTS = [
    "<script>",
    "../../etc/passwd",
    "\u202e\x00\n",
    "x" * 10_000,
    "https://evil.example",
    "#training",
    "./",
    "\ud800",
    "@id",
]


def graph(documents: Documents, sizes: Any = SIZES) -> dict[str, dict[str, Any]]:
    held = json.loads(crate(documents, sizes))
    assert held["@context"] == "https://w3id.org/ro/crate/1.2/context"
    found = {one["@id"]: one for one in held["@graph"]}
    assert len(found) == len(held["@graph"]), "each thing is described once"
    return found


def links(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else [one for item in value.values() for one in links(item)]
    return [one for item in value for one in links(item)] if isinstance(value, list) else []


def check(found: dict[str, dict[str, Any]]) -> None:
    """What the specification says with MUST, and what this package promises beyond."""
    descriptor, root = found["ro-crate-metadata.json"], found["./"]
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert descriptor["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.2"}
    assert root["@type"] == "Dataset" and root["name"] and root["description"] and root["license"]
    datetime.date.fromisoformat(root["datePublished"])
    parts = links(root["hasPart"])
    files = {place for place, one in found.items() if one["@type"] == "File"}
    assert set(parts) == files and len(parts) == len(files)
    for place in files:
        assert not place.startswith(("/", "#")) and ".." not in place.split("/") and "encodingFormat" in found[place]
    for one in found.values():
        assert one["@type"]
        for link in links({key: value for key, value in one.items() if key != "@id"}):
            assert link in found or link.startswith("https://w3id.org/ro/crate/"), link
    outside = [one for place, one in found.items() if one["@type"] == "Dataset" and place != "./"]
    assert all(one["@id"].startswith("#") for one in outside)


def test_it_follows_the_specification() -> None:
    check(graph(full()))
    check(graph(Documents("x"), {}))


def test_the_root_names_licence_authors_and_day() -> None:
    found = graph(full())
    root = found["./"]
    assert (
        root["license"] == {"@id": "https://spdx.org/licenses/MIT"}
        and found["https://spdx.org/licenses/MIT"]["name"] == "MIT"
    )
    assert root["datePublished"] == "2023-11-14" and root["name"] == "Clothes told apart"
    people = [found[link] for link in links(root["author"])]
    assert [one["@type"] for one in people] == ["Person", "Person"]
    assert people[0]["@id"] == "https://orcid.org/0000-0002-1825-0097" and people[0]["familyName"] == "Lovelace"


def test_without_a_licence_it_says_so() -> None:
    assert "No licence was given" in graph(Documents("x"))["./"]["license"]
    assert graph(Documents("x", run=RunFacts(licence="ask me")))["./"]["license"] == "ask me"


def test_the_training_is_an_action_of_software_on_data() -> None:
    found = graph(full())
    action = found["#training"]
    assert action["@type"] == "CreateAction" and found["./"]["mentions"] == [{"@id": "#training"}]
    assert [(found[link]["name"], found[link]["version"]) for link in links(action["instrument"])] == [
        ("Python", "3.11.9"),
        ("PyTorch", "2.14.0"),
        ("relume", "0.9.1"),
    ]
    assert all(found[link]["@type"] == "SoftwareApplication" for link in links(action["instrument"]))
    assert found["#data-0"]["name"] == "fashion-mnist train" and {"@id": "#data-0"} in action["object"]
    assert {"@id": "#ancestor-0"} in action["object"] and {"@id": "code/train.py"} in action["object"]
    assert action["result"] == [{"@id": "model.safetensors"}] and action["description"] == "relume train --model mlp"
    assert (action["startTime"], action["endTime"]) == ("2023-11-14T22:13:20+00:00", "2023-11-14T22:14:21+00:00")
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"


def test_the_data_of_the_training_may_be_known_by_name_only() -> None:
    found = graph(Documents("x", run=RunFacts(config={"dataset": "fashion-mnist"})))
    assert found["#training"]["object"] == [{"@id": "#training-data"}]
    assert found["#training-data"] == {"@id": "#training-data", "@type": "Dataset", "name": "fashion-mnist"}


def test_every_file_has_its_size_and_digest() -> None:
    digest = "0f" * 32
    sizes = {"model.safetensors": Member(path="model.safetensors", size_bytes=7, blake3=digest, crc32=1), "a b%c.py": 3}
    found = graph(full(), sizes)
    assert (
        found["model.safetensors"]["contentSize"] == "7"
        and found["model.safetensors"]["identifier"] == f"blake3:{digest}"
    )
    assert found["a%20b%25c.py"]["contentSize"] == "3" and found["a%20b%25c.py"]["encodingFormat"] == "text/x-python"
    assert {unquote(link) for link in links(found["./"]["hasPart"])} == {
        "model.safetensors",
        "a b%c.py",
        "manifest.json",
    }


def test_claims_are_properties_of_the_weights() -> None:
    found = graph(full())
    values = [found[link] for link in links(found["model.safetensors"]["variableMeasured"])]
    assert ("accuracy", 0.8712000131607056, "on fashion-mnist test") in [
        (one["name"], one["value"], one["description"]) for one in values
    ]


def test_the_library_reads_it_back(tmp_path: Path) -> None:
    for path, size in SIZES.items():
        file = tmp_path / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(size))
    (tmp_path / "manifest.json").write_bytes(b"{}")
    (tmp_path / "ro-crate-metadata.json").write_bytes(crate(full(), SIZES))
    read = ROCrate(tmp_path)
    assert read.version == "1.2" and read.name == "Clothes told apart"
    assert {one.id for one in read.data_entities} == {*SIZES, "manifest.json"}
    assert [one["name"] for one in read.get("#training")["instrument"]] == ["Python", "PyTorch", "relume"]
    assert read.license["name"] == "MIT" and read.datePublished == datetime.datetime(2023, 11, 14)


def test_the_same_documents_give_the_same_bytes() -> None:
    assert crate(full(), SIZES) == crate(full(), dict(reversed(SIZES.items())))


@pytest.mark.parametrize("text", TEXTS)
def test_other_people_s_text_is_text(text: str) -> None:
    found = graph(filled_with(text))
    check(found)
    assert len(json.dumps(found)) < 60_000
    known = set(graph(full()))
    new = {place for place in found if place not in known}
    assert all(place.startswith("#") for place in new), new


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocrate.rocrate", None)
    with pytest.raises(MissingPackageError, match=r'rocrate: pip install "relume\[share\]"'):
        crate(full(), SIZES)
