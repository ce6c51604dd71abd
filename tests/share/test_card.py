"""The model card, as people and Hugging Face's hub read it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from described_bundles import SIZES, filled_with, full
from huggingface_hub import EvalResult, ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from relume.share.archive import write_archive
from relume.share.bundle import Bundle
from relume.share.card import Documents, card_files
from relume.share.documents import Claim, Claims, Data, DataSet, Evaluation, Model, Preprocessing, RunFacts

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "x](https://evil.example) [y](https://evil.example) ![z](https://evil.example/p.png) <https://evil.example>",
    "https://evil.example www.evil.example a@evil.example",
    "a | b\n| - | - |\n\n# heading\n\n- list\n\n---\nlicense: mit\n---\n",
    "```\n~~~\n</details>\n[a]: https://evil.example\n",
    "\"quote' `tick` \\ {x: &y *z !!python/object/apply:os.system [ls]}",
    "\u202egnp.exe\u2066\u200f\x1b[31m\x00\ud800\u2028",
    "$x$ \\(y\\) &lt;b&gt; &#60;script&#62;",
    "x" * 10_000,
    "",
]
HEADINGS = [
    "Use it",
    "Results",
    "Examples",
    "How it was trained",
    "Data",
    "Reproduce it",
    "Environment",
    "Lineage and licences",
    "Intended use",
    "Limitations",
    "Ethical considerations",
    "What the author has not said",
    "Citation",
    "Files",
]


def card(documents: Documents) -> str:
    return card_files(documents, SIZES)["README.md"].decode()


def section(text: str, heading: str) -> str:
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def tokens(text: str) -> list[object]:
    found = MarkdownIt("commonmark", {"html": True}).enable(["table"]).parse(ModelCard(text).text)
    return [inner for token in found for inner in (token, *(token.children or ()))]


def test_the_header_is_read_by_the_hub_s_client() -> None:
    read = ModelCard(card(full())).data
    assert (read.license, read.library_name, read.pipeline_tag) == ("mit", "relume", "image-classification")
    assert read.datasets == ["zalando-datasets/fashion_mnist"] and read.metrics == ["accuracy"]
    assert read.base_model == ["timm/mlp.a1"] and read.tags == ["relume", "pytorch", "safetensors"]
    assert read.model_name == "fashion" and len(read.eval_results) == 3
    assert read.eval_results[0] == EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        dataset_type="zalando-datasets/fashion_mnist",
        dataset_name="fashion-mnist",
        dataset_split="test",
        metric_type="accuracy",
        metric_name="accuracy, measured when packed",
        metric_value=0.8712000131607056,
    )


def test_what_the_client_writes_of_the_header_is_what_it_read() -> None:
    read = ModelCard(card(full()))
    again = yaml.safe_load(read.data.to_yaml())
    assert again == yaml.safe_load(card(full()).split("---\n")[1])


@pytest.mark.parametrize(
    ("licence", "known"),
    [
        ("apache-2.0", {"license": "apache-2.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("ask our lawyers!", {"license": "other", "license_name": "ask-our-lawyers"}),
        ("", {}),
    ],
)
def test_licences_have_the_hub_s_names(licence: str, known: dict[str, str]) -> None:
    read = yaml.safe_load(card(Documents("x", run=RunFacts(licence=licence))).split("---\n")[1])
    assert {key: read[key] for key in ("license", "license_name") if key in read} == known


def test_numbers_that_are_not_finite_stay_out_of_the_header() -> None:
    claims = Claims(
        claims=[Claim(name="loss", value=math.nan, evaluation=0), Claim(name="accuracy", value=1e-05, evaluation=7)],
        evaluations=[Evaluation()],
    )
    read = ModelCard(card(Documents("x", claims=claims))).data
    assert [(one.metric_type, one.metric_value) for one in read.eval_results] == [("accuracy", 1e-05)]


def test_results_stand_with_all_their_digits() -> None:
    rows = section(card(full()), "Results").splitlines()
    assert (
        "| `accuracy` | 0.8712000131607056 | fashion-mnist (test) | 10,000 | when packed, cpu, float32 | exact |"
        in rows
    )
    assert "| `val/loss` | 0.4123456789012345 | fashion-mnist (val) | 400 | in training, cpu, float32 | 1e-05 |" in rows


def test_a_number_that_came_out_otherwise_when_packed_is_said() -> None:
    claims = Claims(
        claims=[
            Claim(name="val/accuracy", value=0.5, evaluation=0),
            Claim(name="accuracy", value=0.51, evaluation=1),
            Claim(name="val/loss", value=1.0, evaluation=0),
            Claim(name="loss", value=1.0, evaluation=1),
        ],
        evaluations=[Evaluation(data=0), Evaluation(data=0, where="packing")],
    )
    text = card(Documents("x", claims=claims, data=Data(sets=[DataSet(role="val")])))
    assert "differs from what was measured when packed: `accuracy` by 0.01. Both are in the table." in text
    within = claims.model_copy(update={"claims": [one.model_copy(update={"tolerance": 0.02}) for one in claims.claims]})
    assert "came out again when packed, within its tolerance" in card(Documents("x", claims=within))
    assert len(ModelCard(text).data.eval_results) == 2, "the header has one number for each metric"


def test_sections_are_there_in_order() -> None:
    assert re.findall(r"^## (.*)$", card(full()), re.MULTILINE) == HEADINGS
    assert re.findall(r"^# (.*)$", card(full()), re.MULTILINE) == ["Clothes told apart"]


def test_what_is_missing_is_named_and_what_is_there_is_not() -> None:
    said = section(card(full()), "What the author has not said")
    assert "**intended use**" in said and "**licence of the data** fashion-mnist\n" in said
    assert "**licence**" not in said and "**authors**" not in said and "**code**" not in said
    empty = section(card(Documents("x")), "What the author has not said")
    for missing in ("licence", "authors", "title", "results", "data", "seed", "code", "limitations", "citation"):
        assert f"- **{missing}**" in empty
    run = RunFacts(intended_use="Teaching.", limitations="Photos fail.", ethics="None known.", licence="MIT")
    text = card(Documents("x", run=run))
    assert (
        section(text, "Intended use").strip() == "Teaching." and section(text, "Limitations").strip() == "Photos fail."
    )
    assert not re.search(r"intended use|limitations|ethical", section(text, "What the author has not said"))


def test_limits_that_follow_from_the_numbers_are_said() -> None:
    said = section(card(full()), "Limitations")
    assert "It knows 4 classes and nothing else" in said
    assert "weakest on Pullover: it finds 77.8% of them, against 90.6% of all" in said


def test_nearly_empty_documents_give_a_card() -> None:
    made = card_files(Documents("x"), {})
    assert list(made) == ["README.md"]
    assert "The author claims no numbers." in made["README.md"].decode()


def test_pictures_have_a_text_for_those_who_do_not_see_them() -> None:
    shown = {token.attrs["src"]: token.content for token in tokens(card(full())) if token.type == "image"}
    assert list(shown) == ["pictures/curves.png", "pictures/confusion.png", "pictures/examples.png"]
    assert "Pullover taken for Trouser 2 times" in shown["pictures/confusion.png"]
    assert "loss: train from" in shown["pictures/curves.png"]
    assert {path for path in card_files(full(), {}) if path.startswith("pictures/")} == set(shown)


def test_the_code_of_its_author_is_only_run_when_told_to() -> None:
    model = Model(needs_code="net.Net", document={"recipe": {}})
    assert "`relume.load_model('x.relume', trust=True)`" in card(Documents("x", model=model))
    with_graph = card(Documents("x", model=model.model_copy(update={"has_graph": True})))
    assert "without running any of its author's code" in with_graph and "trust" not in with_graph
    unknown = Model(why_no_document="it was made by hand")
    assert "is not in the bundle: it was made by hand" in card(Documents("x", model=unknown))


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_other_people_s_text_becomes_markup(text: str) -> None:
    documents = filled_with(text)
    made = card_files(documents, {**SIZES, "code/a b|c`d.py": 3})
    readme = made["README.md"].decode()
    found = tokens(readme)
    assert not [token for token in found if token.type.startswith("html")]
    assert {token.attrs["src"] for token in found if token.type == "image"} <= set(made)
    assert {token.attrs["href"] for token in found if token.type == "link_open"} == set()
    headings = [
        found[at + 1].content for at, token in enumerate(found) if token.type == "heading_open" and token.tag == "h2"
    ]
    assert headings == [one for one in HEADINGS if one in headings] and len(headings) > 9
    assert sum(token.type == "heading_open" for token in found) == len(headings) + 1
    assert not re.search(
        "[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", readme
    )
    assert max(map(len, readme.splitlines())) < 12_000 and len(readme) < 60_000


@pytest.mark.parametrize("text", HOSTILE)
def test_other_people_s_text_stays_within_the_header(text: str) -> None:
    read = yaml.safe_load(card(filled_with(text)).split("\n---\n")[0].removeprefix("---\n"))
    assert set(read) <= {"license", "license_name", "library_name", "pipeline_tag", "tags", "datasets", "metrics",
                         "base_model", "model-index"}  # fmt: skip
    assert read.get("license") in (None, "other") and read["library_name"] == "relume"
    assert "datasets" not in read and "base_model" not in read


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=40))
def test_any_text_gives_the_same_card_twice(text: str) -> None:
    documents = dataclasses.replace(filled_with(text), claims=Claims(), examples=None)
    assert card_files(documents, SIZES) == card_files(documents, SIZES)


def test_the_same_documents_give_the_same_bytes_in_another_process() -> None:
    script = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "from described_bundles import SIZES, full\n"
        "from relume.share.card import card_files\n"
        "made = card_files(full(), SIZES)\n"
        "print([(path, hashlib.sha256(made[path]).hexdigest()) for path in sorted(made)])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent)],
        env={"PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    made = card_files(full(), SIZES)
    assert told.strip() == str([(path, hashlib.sha256(made[path]).hexdigest()) for path in sorted(made)])


def test_without_matplotlib_the_card_comes_without_pictures_and_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    made = card_files(full(), SIZES)
    assert not [path for path in made if path.startswith("pictures/")]
    assert (
        'This card has no pictures: pictures need matplotlib: pip install "relume\\[share\\]". Then pack it again.'
        in (made["README.md"].decode())
    )


def test_the_documents_of_a_bundle_give_the_card_that_is_in_it(tmp_path: Path) -> None:
    known = full()
    parts = {
        "config.json": known.model,
        "preprocessor_config.json": known.preprocessing,
        "run.json": known.run,
        "metrics.json": known.claims,
        "data.json": known.data,
        "environment.json": known.environment,
        "lineage.json": known.lineage,
        "code.json": known.code,
        "examples/examples.json": known.examples,
    }
    contents = {path: document.model_dump_json().encode() for path, document in parts.items()} | dict(known.raw)
    path = tmp_path / "fashion.relume"
    write_archive(path, "fashion", {name: (lambda held=held: [held]) for name, held in contents.items()}, "0.9.1")
    read = Documents.read(Bundle.open(path))
    assert read == dataclasses.replace(known, outputs=[])


def test_a_folder_of_many_classes_is_summed_up() -> None:
    names = [f"class {i}" for i in range(1000)]
    text = card(Documents("x", preprocessing=Preprocessing(kind="image", classes=names)))
    assert "It tells images of 1,000 classes apart: class 0, class 1," in text and "and 988 more." in text
