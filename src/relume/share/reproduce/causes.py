"""Why a stage may differ, the most probable first, and what to try."""

from __future__ import annotations

from collections.abc import Sequence

from relume.share.reproduce.verdicts import Stage, Verdict


def causes(stages: Sequence[Stage], first: str) -> tuple[list[str], list[str]]:
    """Reasons and advice for the first stage that differs; for none, what would let more be checked."""
    if not first:
        return [], _unproven(stages)
    reasons, advice = list(_KNOWN[first][0]), list(_KNOWN[first][1])
    found = {stage.name: stage for stage in stages}
    other = _environment(found.get("environment"))
    if other and first in ("preprocessing", "outputs", "metrics", "training"):
        reasons.append(f"the environment differs: {other}")
        advice.append("install the versions of environment.json in a fresh environment, and check again there")
    if first == "metrics" and (outputs := found.get("outputs")):
        if outputs.verdict is Verdict.EXACT:
            reasons.insert(
                0,
                "outputs on the examples are the author's to the last bit, so that the claimed number itself is the suspect",
            )
        elif outputs.verdict is Verdict.UNCHECKED:
            reasons.append("the model may compute something else here: outputs could not be checked")
    return reasons, advice


def _environment(stage: Stage | None) -> str:
    unlike = [row for row in stage.rows if row.verdict is Verdict.DIFFERENT] if stage is not None else []
    return "; ".join(f"{row.claim} ({row.why})" for row in unlike[:4])


def _unproven(stages: Sequence[Stage]) -> list[str]:
    """What stands in the way of checking more."""
    found = {stage.name: stage for stage in stages}
    texts = [row.why for stage in stages for row in stage.rows if row.verdict is Verdict.UNCHECKED]
    advice = []
    if any("--trust" in text for text in texts):
        advice.append("read the bundle's code (relume unpack), and if you trust it run again with --trust")
    data = found.get("data")
    if data is not None and data.verdict is Verdict.UNCHECKED:
        advice.append("say where the data are: --data PATH")
    outputs = found.get("outputs")
    if outputs is not None and outputs.verdict is Verdict.UNCHECKED:
        advice.append("ask the author for a bundle with examples and with a graph, which opens without code")
    return advice


_KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "digests": (
        ("the file was damaged on its way", "somebody changed it after it was packed"),
        ("get the bundle again from its author, and compare the digest of its manifest with theirs",),
    ),
    "environment": ((), ()),
    "weights": (
        ("the weights were exchanged after the author measured them", "the bundle was put together of parts of two"),
        ("ask the author for the bundle, and for the digest that theirs has",),
    ),
    "preprocessing": (
        (
            "the settings of preprocessor_config.json are not those that made the stored inputs",
            "another version of Pillow resizes in another way",
        ),
        (
            "compare size, channels, mean and std with what the author trained with: run.json, config, input",
            "metrics may still be right where the settings are, and the stored inputs are old",
        ),
    ),
    "outputs": (
        (
            "the weights or the stored outputs are not those of one model",
            "the bundled graph or code is of another version than the weights",
        ),
        ("ask the author to pack the checkpoint again, and compare the digests of the weights",),
    ),
    "data": (
        ("another version, part or order of the data set", "images were converted, resized or compressed again"),
        ("get the data from where data.json says, and give their place: --data PATH",),
    ),
    "metrics": (
        ("the claim was measured on another checkpoint, other data, or by another function", "the claim was edited"),
        ("measure with the command that metrics.json names", "ask the author how the number was measured"),
    ),
    "training": (
        (
            "the training data are others than the author's: data.json knows those of the claims alone",
            "the training is not deterministic: a seed that is not set, workers, or kernels that add in any order",
            "the code is not what ran: files were changed while it did, or left out of the bundle",
        ),
        ("relume doctor says what stands in the way of the same bits", "train with deterministic=True"),
    ),
}
