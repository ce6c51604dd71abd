"""The first sections of a model card: what it is, how to use it, how good it is.

Each is a function of the documents; an empty text where there is nothing to say.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence

from relume.share import documents as files
from relume.share.described import Documents
from relume.share.documents import Claim, Evaluation
from relume.share.escaping import block, code, prose, table
from relume.share.hubheader import stated, task
from relume.share.phrases import Beside, data_name, file_name, kind_of, paragraph
from relume.share.predicted import Prediction, predictions
from relume.text import counted

_SHOWN_CLASSES, _SHOWN_CLAIMS = 12, 50


def opening(documents: Documents, beside: Beside) -> str:
    """The title, and what it is in two sentences."""
    parts = [f"# {prose(documents.title, 120) or 'A model'}", _summary(documents)]
    if headline := _headline(documents):
        parts.append(headline)
    if files.REPORT in beside.sizes:
        parts.append(f"How it was trained, to look at: [{files.REPORT}]({files.REPORT}) opens in any browser, offline.")
    if documents.run.notes.strip():
        parts.append("\n".join(f"> {prose(line, 600)}" for line in paragraph(documents.run.notes)))
    if beside.problem:
        parts.append(f"This card has no pictures: {prose(beside.problem)}. Then pack it again.")
    return "\n\n".join(parts)


def use(documents: Documents, beside: Beside) -> str:
    """How to get a model out of it, with relume and without."""
    model, file = documents.model, file_name(documents)
    kind = code(kind_of(documents), 80) or "the model"
    lines = [
        f"## Use it\n\nThe file is called {code(file, 120)} here; where yours has another name, say that one.",
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
            f"state = load_file('bundle/{files.WEIGHTS}')\nmodel.load_state_dict(state)  # your own {kind_of(documents, 40)}",
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


def _summary(documents: Documents) -> str:
    model, classes = documents.model, documents.classes
    parameters = f" with {counted(model.parameters, 'parameter')}" if model.parameters else ""
    kind = f"{_article(kind_of(documents))} {code(kind_of(documents), 80)}" if kind_of(documents) else "A PyTorch model"
    trained_on = next(map(data_name, documents.trained_on), "") or prose(documents.dataset, 80)
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
    where = f" of {data_name(measured_on)}" if measured_on and data_name(measured_on) else ""
    name = prose(best.name.rpartition("/")[2] or best.name, 60)
    return f"**{name} {shown}**{examples}{where}. `relume reproduce` checks it."


def _claim_row(documents: Documents, claim: Claim) -> tuple[str, ...]:
    evaluation = documents.evaluation(claim)
    data = documents.measured_on(evaluation)
    where = "in training" if evaluation.where == "training" else "when packed"
    return (
        code(claim.name, 80),
        f"{claim.value!r}",
        data_name(data) if data else "",
        f"{data.samples:,}" if data and data.samples is not None else "",
        f"{where}, {prose(evaluation.device, 40)}, {prose(evaluation.precision, 20)}",
        f"{claim.tolerance:.2g}" if claim.tolerance else "exact",
    )


def _how_measured(documents: Documents, claims: Sequence[Claim]) -> Iterator[str]:
    used = sorted({claim.evaluation for claim in claims})
    lines = []
    for number in used[:10]:
        evaluation = documents.evaluation(claims[0].model_copy(update={"evaluation": number}))
        names = ", ".join([code(claim.name, 60) for claim in claims if claim.evaluation == number][:20])
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


def _input(documents: Documents) -> Iterator[str]:
    known = [(name, value) for name, value in documents.preprocessing.settings.items() if value is not None]
    if documents.preprocessing.kind == "image":
        shown = ", ".join(f"{code(name, 40)} {code(value, 80)}" for name, value in sorted(known)[:12])
        yield f"An input is an image, made ready as `{files.INPUT}` says{f': {shown}' if shown else ''}."
    elif documents.preprocessing.kind == "tensors":
        yield "An input is a tensor as it is: there is no preprocessing."


def _commands(documents: Documents) -> Iterator[str]:
    file = shlex.quote(file_name(documents))
    yield f"relume inspect {file}"
    if documents.preprocessing.kind == "image":
        yield f"relume predict {file} picture.png"
    yield f"relume reproduce {file}"


def _article(noun: str) -> str:
    return "An" if re.match(r"[AEIOUaeiou]|[FHLMNRSX](?=[A-Z])", noun) else "A"
