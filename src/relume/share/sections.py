"""The sections of a model card. Each is a function of the documents; an empty text where there is nothing to say."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from relume.monitor.pace import duration
from relume.share import documents as files
from relume.share.citation import authors_of, bibtex_entry
from relume.share.described import Documents
from relume.share.documents import Ancestor, Claim, DataSet, Evaluation
from relume.share.escaping import address, block, code, is_address, prose, table, words
from relume.share.hubheader import stated, task
from relume.share.licences import spdx, spdx_address
from relume.share.pictures import Drawn
from relume.share.predicted import Prediction, predictions
from relume.text import counted, printable, size

_SHOWN_CLASSES, _SHOWN_SETTINGS, _SHOWN_CLAIMS, _SHOWN_FILES = 12, 40, 50, 60
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "safetensors", "relume")
_TEXT = 4000


@dataclass(frozen=True)
class Beside:
    """What lies beside README.md in the bundle.

    Attributes:
        sizes: bytes of all files, by their paths.
        pictures: those that were drawn, by what they show.
        problem: why none could be drawn, and what to do.
    """

    sizes: Mapping[str, int]
    pictures: Mapping[str, Drawn] = field(default_factory=dict)
    problem: str = ""

    def shown(self, what: str) -> str:
        """A picture with its text for those who do not see it; empty where there is none."""
        picture = self.pictures.get(what)
        return f"![{words(picture.text, 600)}]({picture.path})" if picture else ""


def opening(documents: Documents, beside: Beside) -> str:
    """The title, and what it is in two sentences."""
    parts = [f"# {prose(documents.title, 120) or 'A model'}", _summary(documents)]
    if headline := _headline(documents):
        parts.append(headline)
    if documents.run.notes.strip():
        parts.append("\n".join(f"> {prose(line, 600)}" for line in _paragraph(documents.run.notes)))
    if beside.problem:
        parts.append(f"This card has no pictures: {prose(beside.problem)}. Then pack it again.")
    return "\n\n".join(parts)


def use(documents: Documents, beside: Beside) -> str:
    """How to get a model out of it, with relume and without."""
    model, file = documents.model, _file(documents)
    kind = code(_kind(documents), 80) or "the model"
    lines = [
        "## Use it",
        block(f"import relume\n\nmodel = relume.load_model({file!r})  # every byte is verified first"),
    ]
    lines[1] = lines[1].replace("```\n", "```python\n", 1)
    if model.needs_code:
        way = (
            "relume opens it through its graph, without running any of its author's code"
            if model.has_graph
            else f"relume runs it only if told to: {code(f'relume.load_model({file!r}, trust=True)', 300)}"
        )
        lines.append(f"The class {code(model.needs_code)} is the author's own, in `code/`; {way}.")
    elif model.document is None and not model.has_graph:
        why = f": {prose(model.why_no_document, 300)}" if model.why_no_document else ""
        lines.append(f"How the model is built is not in the bundle{why}. Its weights are; build {kind} yourself.")
    lines += [
        "On the command line:",
        block("\n".join(_commands(documents)), "bash"),
        "Without relume, the bundle is an ordinary zip file, and its weights are safetensors:",
        block(
            f"import zipfile\n\nfrom safetensors.torch import load_file\n\nzipfile.ZipFile({file!r}).extractall('bundle')\n"
            f"state = load_file('bundle/{files.WEIGHTS}')\nmodel.load_state_dict(state)  # your own {_kind(documents, 40)}",
            "python",
        ),
    ]
    return "\n\n".join([*lines, *_input(documents)])


def results(documents: Documents, beside: Beside) -> str:
    """The numbers that the author stands for, and how they were measured."""
    claims = stated(documents)
    parts = ["## Results"]
    if not claims:
        parts.append("The author claims no numbers.")
    else:
        rows = [_claim_row(documents, claim) for claim in claims[:_SHOWN_CLAIMS]]
        columns = ("metric", "value", "data", "examples", "measured", "tolerance")
        parts.append(table(columns, rows, (1, 3, 5)))
        if len(claims) > _SHOWN_CLAIMS:
            parts.append(f"{len(claims) - _SHOWN_CLAIMS:,} more are in `{files.CLAIMS}`.")
        parts += _how_measured(documents, claims)
    parts += [*filter(None, (beside.shown("curves"), beside.shown("confusion"))), *_confused(documents)]
    return "\n\n".join(parts)


def examples(documents: Documents, beside: Beside) -> str:
    """What the model made of some examples, whose outputs are in the bundle."""
    if documents.examples is None or not documents.examples.examples:
        return ""
    count = counted(len(documents.examples.examples), "example")
    text = f"{count} of the data, with the outputs that the author got, are in `examples/`: `relume reproduce` compares them."
    rows = [_example_row(documents, number, one) for number, one in enumerate(predictions(documents)[:16])]
    has_guesses = any(row[2] for row in rows)
    columns = ("", "is", "taken for", "with probability") if has_guesses else ("", "is")
    shown = table(columns, [row[: len(columns)] for row in rows], (3,)) if any(row[1] for row in rows) else ""
    return "\n\n".join(filter(None, ("## Examples", text, beside.shown("examples"), shown)))


def training(documents: Documents, beside: Beside) -> str:
    """How it was trained: data, hyperparameters, seed, command, time, hardware."""
    run, environment = documents.run, documents.environment
    hardware = ", ".join(filter(None, (*environment.gpus[:8], environment.cpu))) or environment.device
    trained_on = "; ".join(_data_name(data) for data in documents.trained_on[:5]) or prose(documents.dataset, 80)
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
            _data_name(one),
            "" if one.samples is None else f"{one.samples:,}",
            code(one.fingerprint[:16]),
            _licence(one.licence),
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
    file = shlex.quote(_file(documents))
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
        f"This model: {_licence(licence)}." if licence else "The author has not said under which licence this model is."
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
        lines = [prose(line, 1000) for line in _paragraph(text)]
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
        parts += ["The author asks to be cited so:", block(documents.run.citation.strip(), limit=_TEXT)]
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


# ------------------------------------------------------------------------------------------------------------ what it says


def _summary(documents: Documents) -> str:
    model, classes = documents.model, documents.classes
    parameters = f" with {counted(model.parameters, 'parameter')}" if model.parameters else ""
    kind = f"{_article(_kind(documents))} {code(_kind(documents), 80)}" if _kind(documents) else "A PyTorch model"
    trained_on = next(map(_data_name, documents.trained_on), "") or prose(documents.dataset, 80)
    trained_on = f", trained on {trained_on}" if trained_on else ""
    what = {"image-classification": " images"}.get(task(documents), "")
    if classes:
        shown = ", ".join(prose(name, 40) for name in classes[:_SHOWN_CLASSES])
        more = f" and {len(classes) - _SHOWN_CLASSES:,} more" if len(classes) > _SHOWN_CLASSES else ""
        apart = f" It tells{what} of {counted(len(classes), 'class', 'classes')} apart: {shown}{more}."
    else:
        apart = ""
    return f"{kind}{parameters}{trained_on}.{apart}"


def _headline(documents: Documents) -> str:
    claims = [claim for claim in stated(documents) if math.isfinite(claim.value)]
    best = next((claim for claim in claims if claim.name.rpartition("/")[2] == "accuracy"), next(iter(claims), None))
    if best is None:
        return ""
    measured_on = documents.measured_on(documents.evaluation(best))
    shown = f"{best.value:.2%}" if best.name.endswith("accuracy") and 0 <= best.value <= 1 else f"{best.value:.5g}"
    examples = f" on {counted(measured_on.samples, 'example')}" if measured_on and measured_on.samples else ""
    where = f" of {_data_name(measured_on)}" if measured_on and _data_name(measured_on) else ""
    name = prose(best.name.rpartition("/")[2] or best.name, 60)
    return f"**{name} {shown}**{examples}{where}. `relume reproduce` checks it."


def _claim_row(documents: Documents, claim: Claim) -> tuple[str, ...]:
    evaluation = documents.evaluation(claim)
    data = documents.measured_on(evaluation)
    where = "in training" if evaluation.where == "training" else "when packed"
    return (
        code(claim.name, 80),
        f"{claim.value!r}",
        _data_name(data) if data else "",
        f"{data.samples:,}" if data and data.samples is not None else "",
        f"{where}, {prose(evaluation.device, 40)}, {prose(evaluation.precision, 20)}",
        f"{claim.tolerance:.2g}" if claim.tolerance else "exact",
    )


def _how_measured(documents: Documents, claims: Sequence[Claim]) -> Iterator[str]:
    used = sorted({claim.evaluation for claim in claims})
    lines = []
    for number in used[:10]:
        evaluation = documents.evaluation(claims[0].model_copy(update={"evaluation": number}))
        names = ", ".join(code(claim.name, 60) for claim in claims if claim.evaluation == number)
        lines.append(f"- {names}: {_how(evaluation)}.")
    yield "\n".join(lines)
    if twice := _measured_twice(documents, claims):
        yield twice


def _how(evaluation: Evaluation) -> str:
    computed = sorted({prose(kind, 80) for kind in evaluation.metrics.values() if kind})
    where = "recorded while training" if evaluation.where == "training" else "measured anew when this was packed"
    said = [f"{where}, in batches of {evaluation.batch_size:,}" if evaluation.batch_size > 1 else where]
    said += [f"computed as {', '.join(computed)}"] if computed else []
    said += [f"by {code(shlex.join(evaluation.command[:60]), 200)}"] if evaluation.command else []
    said += [f"seed {evaluation.seed}"] if evaluation.seed is not None else []
    known = evaluation.environment
    said += [f"torch {prose(known['torch'], 30)}"] if known.get("torch") else []
    threads = known.get("threads")
    said += [counted(threads, "thread")] if isinstance(threads, int) and threads > 0 else []
    return ", ".join(said)


def _measured_twice(documents: Documents, claims: Sequence[Claim]) -> str:
    """Whether the numbers recorded in training came out again when packed."""
    recorded: dict[tuple[str, int | None], Claim] = {}
    again: dict[tuple[str, int | None], Claim] = {}
    for claim in claims:
        evaluation = documents.evaluation(claim)
        key = (claim.name.rpartition("/")[2], evaluation.data)
        (recorded if evaluation.where == "training" else again)[key] = claim
    both = [key for key in recorded if key in again]
    apart = {key: abs(recorded[key].value - again[key].value) for key in both}
    other = [key for key in both if not apart[key] <= recorded[key].tolerance]
    if other:
        said = ", ".join(f"{code(key[0], 60)} by {apart[key]:.2g}" for key in other)
        return (
            f"What was recorded in training differs from what was measured when packed: {said}. Both are in the table."
        )
    return "What was recorded in training came out again when packed, within its tolerance." if both else ""


def _confused(documents: Documents) -> Iterator[str]:
    report = documents.report
    pairs = report.confused(3) if report else []
    if pairs:
        said = "; ".join(f"{prose(one, 40)} taken for {prose(other, 40)} ({count:,})" for one, other, count in pairs)
        yield f"Mixed up most often: {said}."


def _example_row(documents: Documents, number: int, one: Prediction) -> tuple[str, ...]:
    share = "" if one.share is None else f"{one.share:.1%}"
    mark = "" if one.is_right is None or one.is_right else " (wrong)"
    return f"{number}", prose(one.true, 60), f"{prose(one.predicted, 60)}{mark}" if one.predicted else "", share


def _code(documents: Documents) -> Iterator[str]:
    known = documents.code
    if known is None:
        return
    commit = f", commit {code(known.commit, 40)}" if known.commit else ""
    changed = ", with changes that were not committed" if known.is_dirty and known.commit else ""
    remote = f", of {address(known.remote)}" if known.remote else ""
    count = f"The code as it was ({counted(len(known.files), 'file')})" if known.files else "Which code it was"
    yield f"{count} is in `{files.CODE_FOLDER if known.files else files.CODE}`{remote}{commit}{changed}."


def _input(documents: Documents) -> Iterator[str]:
    known = [(name, value) for name, value in documents.preprocessing.settings.items() if value is not None]
    if documents.preprocessing.kind == "image":
        shown = ", ".join(f"{code(name, 40)} {code(value, 80)}" for name, value in sorted(known)[:12])
        yield f"An input is an image, made ready as `{files.INPUT}` says{f': {shown}' if shown else ''}."
    elif documents.preprocessing.kind == "tensors":
        yield "An input is a tensor as it is: there is no preprocessing."


def _commands(documents: Documents) -> Iterator[str]:
    file = shlex.quote(_file(documents))
    yield f"relume inspect {file}"
    if documents.preprocessing.kind == "image":
        yield f"relume predict {file} picture.png"
    yield f"relume reproduce {file}"


def _limits(documents: Documents) -> Iterator[str]:
    """Limits that follow from the documents."""
    if documents.classes:
        number = counted(len(documents.classes), "class", "classes")
        yield f"- It knows {number} and nothing else: whatever it is given, it takes for one of them."
    measured = {documents.evaluation(claim).data for claim in documents.claims.claims}
    names = [_data_name(documents.data.sets[at]) for at in sorted(n for n in measured if n is not None)
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
    yield from dict.fromkeys(f"**licence of the data** {prose(one.name, 80) or _data_name(one)}" for one in unlicensed)
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
    return prose(one.name, 100), detail, code(one.digest[:16]), _licence(one.licence) or "not said"


def _licence(licence: str) -> str:
    known = spdx(licence)
    return f"[{prose(known)}]({spdx_address(licence)})" if known else prose(licence, 100)


def _data_name(data: DataSet) -> str:
    split = f" ({prose(data.split, 60)})" if data.split else ""
    name = prose(data.name, 80) or ("" if data.kind == "other" else prose(data.kind, 20))
    return f"{name}{split}" if name else (f"{prose(data.role, 40)} data{split}" if data.role else "")


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
    files.CITATION: "how to cite it, for programs",
    files.CRATE: "what is in here, for archives (RO-Crate 1.2)",
    files.CODE_FOLDER: "the code as it was",
    files.GRAPH_FOLDER: "the model's graph, runs without its code",
    files.PICTURES_FOLDER: "the pictures of this card",
    files.SAMPLE_FOLDER: "a sample of the data",
    files.CHECKPOINT_FOLDER: "the full checkpoint, to train on",
    "examples/": "examples, and the outputs the author got",
}


def _kind(documents: Documents, limit: int = 80) -> str:
    return printable(next(iter(documents.model.architectures), ""), limit)


def _article(noun: str) -> str:
    return "An" if re.match(r"[AEIOUaeiou]|[FHLMNRSX](?=[A-Z])", noun) else "A"


def _file(documents: Documents) -> str:
    return f"{printable(documents.name, 100)}.relume"


def _is_known(number: float | None) -> bool:
    return number is not None and math.isfinite(number) and number >= 0


def _paragraph(text: str) -> list[str]:
    return [line for line in text[:_TEXT].splitlines() if line.strip()]


def _flat(config: Mapping[str, object], before: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Settings by dotted names."""
    for key, value in sorted(config.items()):
        name = f"{before}{printable(key, 80)}"
        if isinstance(value, Mapping) and value and depth < 4:
            yield from _flat(value, f"{name}.", depth + 1)
        else:
            yield name, value if isinstance(value, str) else repr(value)[:1000]
