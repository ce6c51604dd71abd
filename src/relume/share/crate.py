"""ro-crate-metadata.json: what is in a bundle, for archives such as Zenodo.

Format: RO-Crate 1.2 (https://w3id.org/ro/crate/1.2), with the training as Process Run Crate 0.5 describes a run of software
(https://w3id.org/ro/wfrun/process/0.5). Made by the library ``rocrate``, which writes 1.3 unless it is told.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from typing import Any

from relume.errors import MissingPackageError
from relume.share import documents as files
from relume.share.citation import Author, authors_of
from relume.share.described import Documents
from relume.share.documents import DataSet
from relume.share.escaping import is_address
from relume.share.hubheader import stated_once
from relume.share.licences import spdx, spdx_address
from relume.share.manifest import MANIFEST, Member
from relume.text import printable

VERSION = "1.2"
_NO_DATE = "1980-01-01"
"""Where the run has no date: that of all files in the archive."""
_PROCESS_RUN = "https://w3id.org/ro/wfrun/process/0.5"
_FORMATS = {
    ".safetensors": "application/octet-stream",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".cff": "application/yaml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".py": "text/x-python",
    ".ipynb": "application/x-ipynb+json",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".html": "text/html",
    ".pdf": "application/pdf",
    ".sh": "application/x-sh",
    ".zip": "application/zip",
}
_NAMES = {
    files.WEIGHTS: "Weights of the model (safetensors)",
    files.MODEL: "How the model is built",
    files.INPUT: "How a raw example becomes an input",
    files.RUN: "The run that made the model",
    files.CLAIMS: "Claimed metrics, how they were measured, and curves",
    files.DATA: "The data, by content",
    files.ENVIRONMENT: "Software versions of the training",
    files.LINEAGE: "What the model was made from",
    files.CODE: "Which code trained it",
    files.PROVENANCE: "The training as it was started",
    files.CARD: "Model card",
    files.REPORT: "Report on the training, as a page",
    files.CITATION: "How to cite the model",
    files.EXAMPLES: "Examples with the outputs that the author got",
    files.EXAMPLE_TENSORS: "Inputs and outputs of the examples (safetensors)",
    MANIFEST: "Digest of every file",
}


def crate(documents: Documents, sizes: Mapping[str, int | Member]) -> bytes:
    """The metadata of the archive; the same documents give the same bytes.

    Args:
        sizes: of the other files of the bundle, by their paths: bytes, or what the manifest says of them, digest included.

    Raises:
        MissingPackageError: ``rocrate`` is not installed.

    Example:
        >>> held = json.loads(crate(Documents("tiny"), {"model.safetensors": 1200}))
        >>> held["@context"], [part["@id"] for part in held["@graph"][0]["hasPart"]]
        ('https://w3id.org/ro/crate/1.2/context', ['manifest.json', 'model.safetensors'])
    """
    try:
        from rocrate.rocrate import ROCrate
    except ImportError:
        raise MissingPackageError('metadata for archives needs rocrate: pip install "relume[share]"') from None
    made = ROCrate(version=VERSION)
    people = [_person(made, author, number) for number, author in enumerate(authors_of(documents))]
    _describe(made, documents, people)
    # the manifest holds this file's digest: nothing about its content can stand here
    held = {MANIFEST: None, **{path: size for path, size in sizes.items() if path != files.CRATE}}
    parts = {path: _file(made, path, held[path]) for path in sorted(held)}
    _training(made, documents, parts, people)
    _evaluations(made, documents, parts)
    text = json.dumps(_in_order(made.metadata.generate()), indent=1, ensure_ascii=False, sort_keys=True)
    return f"{text}\n".encode()


def _describe(made: Any, documents: Documents, people: list[Any]) -> None:
    run, root = documents.run, made.root_dataset
    root["name"] = printable(documents.title, 300)
    root["description"] = _description(documents)
    root["datePublished"] = documents.day or _NO_DATE
    root["license"] = _licence(made, run.licence)
    root["conformsTo"] = _thing(made, _PROCESS_RUN, "CreativeWork", name="Process Run Crate", version="0.5")
    root["keywords"] = list(
        dict.fromkeys(["PyTorch", "machine learning", *(printable(tag, 60) for tag in run.tags[:20])])
    )
    if people:
        root["author"] = people
    if digest := documents.model.weights_digest:
        root["identifier"] = _thing(
            made,
            "#weights",
            "PropertyValue",
            name="Digest of the weights",
            propertyID="blake3",
            value=printable(digest, 64),
        )
    if run.citation.strip():
        root["creditText"] = printable(run.citation, 2000)


def _description(documents: Documents) -> str:
    model, classes = documents.model, documents.classes
    kind = printable(next(iter(model.architectures), ""), 80)
    said = [f"A trained PyTorch model{f' ({kind})' if kind else ''} as a relume bundle"]
    said += [f"{model.parameters:,} parameters"] if model.parameters else []
    said += [f"{len(classes):,} classes"] if classes else []
    said += [
        f"{printable(claim.name, 60)} {claim.value!r}"
        for claim in stated_once(documents)[:4]
        if math.isfinite(claim.value)
    ]
    dated = "" if documents.day else " The day of the training is not known."
    notes = f" {printable(' '.join(documents.run.notes.split()), 1000)}" if documents.run.notes.strip() else ""
    return f"{'; '.join(said)}.{notes}{dated}"


def _licence(made: Any, licence: str) -> Any:
    if not licence.strip():
        return "No licence was given. Ask the authors before you use, change or share it."
    if known := spdx(licence):
        return _thing(
            made, spdx_address(licence), "CreativeWork", name=known, description=f"The licence {known} (SPDX)."
        )
    return printable(licence, 1000)


def _person(made: Any, author: Author, number: int) -> Any:
    place = f"https://orcid.org/{author.orcid}" if author.orcid else f"#author-{number}"
    more = {"givenName": author.given, "familyName": author.family, "email": author.email}
    known = {name: value for name, value in more.items() if value}
    kind = "Person" if author.family or author.orcid else "Organization"
    return _thing(made, place, kind, name=author.name, **known)


def _file(made: Any, path: str, size: int | Member | None) -> Any:
    ending = path[path.rfind(".") :].lower() if "." in path else ""
    known: dict[str, Any] = {"name": _NAMES.get(path, path)}
    known["encodingFormat"] = _FORMATS.get(ending, "application/octet-stream")
    if isinstance(size, Member):
        known |= {"contentSize": str(size.size_bytes), "identifier": f"blake3:{size.blake3}"}
    elif size is not None:
        known["contentSize"] = str(size)
    return made.add_file(dest_path=path, properties=known)


def _training(made: Any, documents: Documents, parts: Mapping[str, Any], people: list[Any]) -> None:
    """The run as an action: this software made these weights of that data."""
    run = documents.run
    used = [_data(made, data, number) for number, data in enumerate(documents.data.sets) if data.role == "train"]
    if not used and documents.dataset:
        used.append(_thing(made, "#training-data", "Dataset", name=printable(documents.dataset, 200)))
    used += [_ancestor(made, number, documents) for number in range(len(documents.lineage.ancestors[:40]))]
    used += [
        parts[path]
        for path in sorted(parts)
        if documents.code and path == f"{files.CODE_FOLDER}{documents.code.script}"
    ]
    known: dict[str, Any] = {
        "name": f"Training of {printable(documents.title, 200)}",
        "instrument": _software(made, documents),
        "result": [parts[path] for path in (files.WEIGHTS,) if path in parts] or made.root_dataset,
        "object": used,
        "agent": people,
        "startTime": documents.moment(),
        "endTime": documents.moment(run.seconds) if run.seconds is not None and math.isfinite(run.seconds) else "",
        "description": shlex.join(printable(word, 300) for word in run.command[:100]),
    }
    status = {"finished": "Completed", "failed": "Failed", "killed": "Failed", "running": "Active"}.get(run.status)
    if status:
        known["actionStatus"] = f"http://schema.org/{status}ActionStatus"
    action = _thing(made, "#training", "CreateAction", **{name: value for name, value in known.items() if value})
    made.root_dataset.append_to("mentions", action)


def _evaluations(made: Any, documents: Documents, parts: Mapping[str, Any]) -> None:
    """Each claimed number as a property of the weights."""
    values = []
    for number, claim in enumerate(stated_once(documents)[:200]):
        if not math.isfinite(claim.value):
            continue
        data = documents.measured_on(documents.evaluation(claim))
        known = {"name": printable(claim.name, 100), "value": claim.value}
        if data is not None:
            known["description"] = f"on {printable(data.name or data.role, 80)} {printable(data.split, 40)}".rstrip()
        values.append(_thing(made, f"#metric-{number}", "PropertyValue", **known))
    if values and files.WEIGHTS in parts:
        parts[files.WEIGHTS]["variableMeasured"] = values


def _software(made: Any, documents: Documents) -> list[Any]:
    environment = documents.environment
    versions = {
        "Python": environment.python,
        **{name: environment.packages.get(name, "") for name in ("torch", "relume")},
    }
    pages = {"Python": "https://www.python.org/", "torch": "https://pytorch.org/", "relume": "#relume"}
    found = []
    for name, version in versions.items():
        if version or name == "torch":
            known = {
                "name": {"torch": "PyTorch"}.get(name, name),
                **({"version": printable(version, 60)} if version else {}),
            }
            known |= {"url": pages[name]} if not pages[name].startswith("#") else {}
            found.append(_thing(made, pages[name], "SoftwareApplication", **known))
    return found


def _data(made: Any, data: DataSet, number: int) -> Any:
    """Data that is not in the bundle: it is described, and no part of it."""
    name = f"{data.name or data.kind} {data.split}".strip()
    known: dict[str, Any] = {"name": printable(name, 200)}
    if data.fingerprint:
        known["identifier"] = f"blake3:{printable(data.fingerprint, 64)}"
    if said := data.covers or data.how_to_get:
        known["description"] = printable(said, 500)
    if is_address(data.source):
        known["url"] = data.source
    if data.licence.strip():
        known["license"] = _licence(made, data.licence)
    return _thing(made, f"#data-{number}", "Dataset", **known)


def _ancestor(made: Any, number: int, documents: Documents) -> Any:
    one = documents.lineage.ancestors[number]
    known: dict[str, Any] = {"name": printable(one.name, 200)}
    if one.digest:
        known["identifier"] = f"blake3:{printable(one.digest, 64)}"
    if one.detail:
        known["description"] = printable(one.detail, 500)
    if is_address(one.url):
        known["url"] = one.url
    if one.licence.strip():
        known["license"] = _licence(made, one.licence)
    return _thing(made, f"#ancestor-{number}", "CreativeWork", **known)


def _thing(made: Any, place: str, kind: str | list[str], **properties: Any) -> Any:
    from rocrate.model.contextentity import ContextEntity

    return made.add(ContextEntity(made, place, properties={"@type": kind, **properties}))


def _in_order(held: dict[str, Any]) -> dict[str, Any]:
    """The same order each time: the root, the descriptor, then by name."""
    first = {"./": 0, "ro-crate-metadata.json": 1}
    held["@graph"] = sorted(held["@graph"], key=lambda one: (first.get(one["@id"], 2), one["@id"]))
    for one in held["@graph"]:
        if isinstance(one.get("hasPart"), list):
            one["hasPart"] = sorted(one["hasPart"], key=lambda part: str(part["@id"]))
    return held
