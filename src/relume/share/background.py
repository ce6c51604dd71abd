"""The other sections of a model card: training, data, how to reproduce it, lineage, limits, citation, files."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping

from relume.monitor.pace import duration
from relume.share import documents as files
from relume.share.citation import authors_of, bibtex_entry
from relume.share.described import Documents
from relume.share.documents import Ancestor
from relume.share.escaping import address, block, code, is_address, prose, table
from relume.share.phrases import Beside, data_name, file_name, licence_in_words, paragraph
from relume.text import counted, printable, size

_SHOWN_SETTINGS, _SHOWN_FILES = 40, 60
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "relume")
_LONGEST_CITATION = 4000
_WHAT = {
    files.WEIGHTS: "the weights",
    files.MODEL: "how the model is built",
    files.INPUT: "how an example becomes an input",
    files.RUN: "the run that made it",
    files.CLAIMS: "the claimed numbers, how they were measured, the curves",
    files.DATA: "which data, by content",
    files.ENVIRONMENT: "the software it was trained with",
    files.LINEAGE: "what it was made from",
    files.CODE: "which code",
    files.PROVENANCE: "the training as it was started",
    files.CARD: "this card",
    files.REPORT: "the run as a page: its curves, settings and checkpoints",
    files.CITATION: "how to cite it, for programs",
    files.CRATE: "what is in here, for archives (RO-Crate 1.2)",
    files.CODE_FOLDER: "the code as it was",
    files.GRAPH_FOLDER: "the model's graph, runs without its code",
    files.PICTURES_FOLDER: "the pictures of this card",
    files.SAMPLE_FOLDER: "a sample of the data",
    files.CHECKPOINT_FOLDER: "the full checkpoint, to train on",
    "examples/": "examples, and the outputs the author got",
}


def training(documents: Documents, beside: Beside) -> str:
    """How it was trained: data, hyperparameters, seed, command, time, hardware."""
    run, environment = documents.run, documents.environment
    hardware = ", ".join(filter(None, (*environment.gpus[:8], environment.cpu))) or environment.device
    trained_on = "; ".join(data_name(data) for data in documents.trained_on[:5]) or prose(documents.dataset, 80)
    checkpoint = f", checkpoint {code(run.checkpoint)}" if run.checkpoint else ""
    rows = [
        ("run", f"{code(run.name)}{checkpoint}" if run.name else ""),
        ("started", documents.moment().replace("T", " ").replace("+00:00", " UTC")),
        ("data", trained_on),
        ("epochs", "" if run.epoch is None else f"{run.epoch:,}"),
        ("updates of the weights", "" if run.step is None else f"{run.step:,}"),
        ("time", "" if not _is_known(run.seconds) else duration(float(run.seconds or 0))),
        ("hardware", prose(hardware)),
        ("seed", "" if run.seed is None else f"`{run.seed}`"),
        ("deterministic algorithms", {True: "yes", False: "no", None: ""}[environment.deterministic]),
        ("status", prose(run.status, 40)),
    ]
    known = [row for row in rows if row[1]]
    parts = ["## How it was trained", table(("", ""), known) if known else "The bundle does not say how."]
    if run.command:
        parts += ["Command:", block(shlex.join(printable(word, 400) for word in run.command[:200]), "bash")]
    if settings := list(_flat(run.config)):
        shown = [(code(name, 80), code(value, 120)) for name, value in settings[:_SHOWN_SETTINGS]]
        parts += ["Hyperparameters and settings:", table(("setting", "value"), shown)]
        if len(settings) > _SHOWN_SETTINGS:
            parts.append(f"{len(settings) - _SHOWN_SETTINGS:,} more are in `{files.RUN}`.")
    return "\n\n".join([*parts, *_code(documents)])


def data(documents: Documents, beside: Beside) -> str:
    """Which data, told by content."""
    sets = documents.data.sets[:20]
    if not sets:
        return ""
    rows = [
        (
            prose(one.role, 40),
            data_name(one),
            "" if one.samples is None else f"{one.samples:,}",
            code(one.fingerprint[:16]),
            licence_in_words(one.licence),
        )
        for one in sets
    ]
    parts = ["## Data", table(("for", "data", "examples", "fingerprint", "licence"), rows, (2,))]
    if covers := next((one.covers for one in sets if one.covers), ""):
        parts.append(
            f"A fingerprint is the begin of a digest: {prose(covers, 300)}. In full they are in `{files.DATA}`."
        )
    for how in dict.fromkeys(one.how_to_get for one in sets if one.how_to_get.strip()):
        parts.append(f"How to get it: {address(how) if is_address(how) else prose(how, 400)}")
    return "\n\n".join(parts)


def reproducing(documents: Documents, beside: Beside) -> str:
    """The command that checks it, and what it checks."""
    file = shlex.quote(file_name(documents))
    sets = [data for data in documents.data.sets if data.kind != "named"]
    lines = [f"relume reproduce {file}"]
    lines += [f"relume reproduce {file} --data PATH  # with your copy of the data"] if sets else []
    lines += [f"relume reproduce {file} --retrain    # also trains again, from code and seed"] if documents.code else []
    return "\n\n".join(
        (
            "## Reproduce it",
            block("\n".join(lines), "bash"),
            "It compares, in this order, and names the first that differs: the digest of every file; this machine's software "
            "with the author's; the weights; the raw examples once preprocessed; what the model makes of them; the data by its "
            "fingerprint; each number of the table above, measured again. Each claim gets a verdict: EXACT, WITHIN TOLERANCE, "
            "DIFFERENT, or CANNOT CHECK and why.",
        )
    )


def environment(documents: Documents, beside: Beside) -> str:
    """The software, in short."""
    known = documents.environment
    packages = [f"{name} {known.packages[name]}" for name in _PACKAGES if known.packages.get(name)]
    python = f"Python {known.python}" if known.python else ""
    cuda = f"CUDA {known.cuda}" if known.cuda else ""
    cudnn = f"cuDNN {known.cudnn}" if known.cudnn else ""
    said = ", ".join(prose(part, 80) for part in (python, *packages, cuda, cudnn, known.system) if part)
    if not said:
        return ""
    count = f" All {len(known.packages)} packages with their versions are in `{files.ENVIRONMENT}`."
    return f"## Environment\n\n{said}.{count if known.packages else ''}"


def lineage(documents: Documents, beside: Beside) -> str:
    """What it was made from, and under which licences."""
    licence = documents.run.licence.strip()
    said = (
        f"This model: {licence_in_words(licence)}."
        if licence
        else "The author has not said under which licence this model is."
    )
    parts = ["## Lineage and licences", said]
    if ancestors := documents.lineage.ancestors[:40]:
        rows = [_ancestor_row(one) for one in ancestors]
        parts.append(table(("made from", "", "digest", "licence"), rows))
    else:
        parts.append(
            "No pretrained weights and no earlier run are named: as far as the run knows, trained from scratch."
        )
    return "\n\n".join(parts)


def author_says(documents: Documents, beside: Beside) -> str:
    """Uses, limits and ethics: the author's words, and what follows from the numbers."""
    run, parts = documents.run, []
    for heading, text, known in (
        ("Intended use", run.intended_use, ()),
        ("Limitations", run.limitations, list(_limits(documents))),
        ("Ethical considerations", run.ethics, ()),
    ):
        lines = [prose(line, 1000) for line in paragraph(text)]
        said = "\n\n".join([*(["\n".join(lines)] if lines else []), *(["\n".join(known)] if known else [])])
        parts.append(f"## {heading}\n\n{said or 'The author has not said.'}")
    return "\n\n".join(parts)


def unsaid(documents: Documents, beside: Beside) -> str:
    """What is missing, by name, and how to add it."""
    missing = list(_missing(documents))
    if not missing:
        return ""
    lines = "\n".join(f"- {one}" for one in missing)
    return f"## What the author has not said\n\n{lines}"


def citing(documents: Documents, beside: Beside) -> str:
    """How to cite it."""
    parts = ["## Citation"]
    if documents.run.citation.strip():
        parts += ["The author asks to be cited so:", block(documents.run.citation.strip(), limit=_LONGEST_CITATION)]
    if authors := authors_of(documents):
        names = ", ".join(prose(author.name, 80) for author in authors)
        parts.append(f"By {names}. For programs there is `{files.CITATION}`.")
    return "\n\n".join([*parts, block(bibtex_entry(documents), "bibtex")])


def contents(documents: Documents, beside: Beside) -> str:
    """The files of the bundle."""
    rows = [
        (code(name, 120), what, "" if count is None else size(count)) for name, what, count in _listed(beside.sizes)
    ]
    made = f"\n\nPacked by relume {prose(documents.relume, 40)}." if documents.relume else ""
    return f"## Files\n\n{table(('file', '', 'size'), rows, (2,))}{made}"


def _code(documents: Documents) -> Iterator[str]:
    known = documents.code
    if known is None:
        return
    commit = f", commit {code(known.commit, 40)}" if known.commit else ""
    changed = ", with changes that were not committed" if known.is_dirty and known.commit else ""
    remote = f", of {address(known.remote)}" if known.remote else ""
    count = f"The code as it was ({counted(len(known.files), 'file')})" if known.files else "Which code it was"
    yield f"{count} is in `{files.CODE_FOLDER if known.files else files.CODE}`{remote}{commit}{changed}."


def _limits(documents: Documents) -> Iterator[str]:
    """Limits that follow from the documents."""
    if documents.classes:
        number = counted(len(documents.classes), "class", "classes")
        yield f"- It knows {number} and nothing else: whatever it is given, it takes for one of them."
    measured = {documents.evaluation(claim).data for claim in documents.claims.claims}
    names = [data_name(documents.data.sets[at]) for at in sorted(n for n in measured if n is not None)
             if 0 <= at < len(documents.data.sets)]  # fmt: skip
    if len(names) == 1:
        yield f"- Its numbers were measured on {names[0]} alone; on other data they may be lower."
    report = documents.report
    if report and report.samples:
        there = [score for score in report.scores if score.support]
        weak = min(there, key=lambda score: score.recall)
        if weak.recall < report.accuracy:
            yield (
                f"- It is weakest on {prose(weak.name, 60)}: it finds {weak.recall:.1%} of them, against {report.accuracy:.1%} "
                "of all."
            )


def _missing(documents: Documents) -> Iterator[str]:
    run, packed = documents.run, "relume pack"
    said = (
        (run.licence, f"**licence**: without one nobody may use it. `{packed} … --licence MIT`"),
        (run.authors, f'**authors**: whom to ask and to cite. `{packed} … --author "NAME"`'),
        (run.title, f'**title**. `{packed} … --title "…"`'),
        (
            run.intended_use,
            '**intended use**: what it was made for, and for what it should not be used. `--intended-use "…"`',
        ),
        (run.limitations, '**limitations**: where it is known to fail. `--limitations "…"`'),
        (
            run.ethics,
            '**ethical considerations**: who may be harmed, and what is in the data about people. `--ethics "…"`',
        ),
        (run.citation, '**citation**: the paper or page to name. `--citation "…"`'),
    )
    yield from (text for known, text in said if not known)
    if not documents.claims.claims:
        yield "**results**: no number is claimed"
    if not documents.data.sets:
        yield "**data**: neither what it was trained on nor what it was measured on"
    elif not documents.trained_on:
        yield f"**training data** by its content: only what it was measured on is in `{files.DATA}`"
    unlicensed = (one for one in documents.data.sets[:20] if not one.licence.strip())
    yield from dict.fromkeys(f"**licence of the data** {prose(one.name, 80) or data_name(one)}" for one in unlicensed)
    for ancestor in documents.lineage.ancestors[:40]:
        if not ancestor.licence.strip():
            yield f"**licence of** {prose(ancestor.name, 80)}, which it was made from"
    if run.seed is None:
        yield "**seed** of the training"
    if documents.code is None:
        yield "**code** of the training"


def _ancestor_row(one: Ancestor) -> tuple[str, ...]:
    what = {"weights": "pretrained weights", "run": "an earlier run"}[one.kind]
    where = address(one.url) if one.url else ""
    detail = ", ".join(filter(None, (what, prose(one.detail, 200), where)))
    return prose(one.name, 100), detail, code(one.digest[:16]), licence_in_words(one.licence) or "not said"


def _listed(sizes: Mapping[str, int]) -> Iterator[tuple[str, str, int | None]]:
    """The files at the top, and folders with what is in them together."""
    folders: dict[str, list[int]] = {}
    for path, count in sizes.items():
        if "/" in path:
            folders.setdefault(path.partition("/")[0] + "/", []).append(count)
    names = sorted({*(path for path in sizes if "/" not in path), files.CARD})
    yield from ((name, _WHAT.get(name, ""), sizes.get(name)) for name in names[:_SHOWN_FILES])
    for name in sorted(folders)[:_SHOWN_FILES]:
        number, what = counted(len(folders[name]), "file"), _WHAT.get(name, "")
        yield name, f"{what}, {number}" if what else number, sum(folders[name])


def _is_known(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number >= 0


def _flat(config: Mapping[str, object], before: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Settings by dotted names."""
    for key, value in sorted(config.items()):
        name = f"{before}{printable(key, 80)}"
        if isinstance(value, Mapping) and value and depth < 4:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, value if isinstance(value, str) else repr(value)[:1000]
