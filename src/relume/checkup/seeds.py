"""Rules about seeds: is one set, in time, and is it a fixed number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from relume.checkup.findings import Finding
from relume.checkup.project import Call, Project, in_scope, name_of, places_of, scopes
from relume.rehearse.scan import Source

_SEED_FIRST = (
    "Call relume.seed_everything(0) (or torch.manual_seed(0)) at the top, before the model and the data are made."
)
_WEIGHTLESS = re.compile(
    r"Module|.*(ReLU|GELU|SiLU|ELU|CELU|Tanh|Sigmoid|Softmax|Softmin|Softplus|Softsign|Hardswish|Mish|Threshold)\d*d?|.*Loss"
    r"|.*(Dropout|Pool|Pad|Norm|Upsample|Unpool)\w*|Flatten|Unflatten|Identity|ModuleList|ModuleDict|ParameterList|ParameterDict"
    r"|Sequential|Fold|Unfold|PixelShuffle|PixelUnshuffle|CosineSimilarity|PairwiseDistance|DataParallel|Buffer|Parameter"
)
_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}
_MAKERS = ("torchvision.models.", "timm.create_model", "relume.build", "relume.models.build", "relume.replace_head")
_LOADERS = {"load_state_dict", "load_weights", "load_model"}


def no_seed(project: Project) -> Iterator[Finding]:
    if project.trains and not project.explicit_seeds and not project.run_seeds:
        yield Finding(
            "stops",
            "script",
            "no seed is set",
            "Weights, order and dropout are others at each start.",
            _SEED_FIRST,
        )


def late_seed(project: Project) -> Iterator[Finding]:
    late: list[Call] = []
    for source in project.sources:
        for scope in scopes(source):
            late += _before_the_seed(project, in_scope(source, scope))
    if late:
        yield Finding(
            "stops",
            "script",
            "random numbers are drawn before the seed is set",
            "What is made of them, such as the first weights of the model, is another at each start. seed= of Run and Trainer "
            "counts from the moment the training begins.",
            _SEED_FIRST,
            places_of(late),
        )


def _before_the_seed(project: Project, calls: list[Call]) -> list[Call]:
    """Calls of one scope that draw from torch's generator before it is seeded there."""
    seeding = project.explicit_seeds or project.run_seeds
    of_seeds = {id(call.node) for call in seeding}
    first = next((number for number, call in enumerate(calls) if id(call.node) in of_seeds), None)
    if first is None or any(call.short in _LOADERS for call in calls):
        return []
    return [call for call in calls[:first] if _draws(project, call)]


def _draws(project: Project, call: Call) -> bool:
    if call.keyword("generator") is not None:
        return False
    if call.name.startswith("torch.nn.") and not call.name.startswith(("torch.nn.functional", "torch.nn.utils")):
        return call.short[:1].isupper() and not _WEIGHTLESS.fullmatch(call.short)
    if call.name.startswith("torch.") and call.short in _DRAWS:
        return True
    return call.name in project.own_modules or call.name.startswith(_MAKERS)


def seeds_of_chance(project: Project) -> Iterator[Finding]:
    chance = [hint for hint in project.hints if hint.kind in ("time", "entropy")]
    lines = {(hint.file, hint.line): hint for hint in chance}
    found = [hint for hint in chance if hint.kind == "entropy" and re.search(r"\.seed\(\)", hint.code)]
    for call in project.calls:
        if project.seeds_torch(call) or call.short in ("seed", "manual_seed", "default_rng", "Random", "RandomState"):
            found += [lines[key] for node in ast.walk(call.node) if (key := _key(call.source, node)) in lines]
        elif (value := call.keyword("seed")) is not None:
            found += [lines[key] for node in ast.walk(value) if (key := _key(call.source, node)) in lines]
    for source in project.sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assign) and any("seed" in name_of(t).lower() for t in node.targets):
                found += [lines[key] for n in ast.walk(node.value) if (key := _key(source, n)) in lines]
    if found:
        yield Finding(
            "stops",
            "script",
            "a seed comes from the clock or from the operating system",
            "It is another one at each start.",
            "Give a fixed number, such as 0. Run stores it.",
            places_of(found),
        )


def _key(source: Source, node: ast.AST) -> tuple[Path, int]:
    return source.path, getattr(node, "lineno", -1) if isinstance(node, ast.Call) else -1


def _seeds_all(call: Call) -> bool:
    """Whether it seeds numpy and Python's random too."""
    return call.short == "seed_everything" or call.name.startswith(("transformers.", "accelerate."))


def unseeded_generators(project: Project) -> Iterator[Finding]:
    seeds_all = project.run_seeds or any(_seeds_all(call) for call in project.explicit_seeds)
    seeded = {call.name for call in project.calls if call.node.args}
    own = [hint for hint in project.hints if hint.kind == "unseeded"]
    if own:
        yield Finding(
            "stops",
            "script",
            "a random generator is given no seed",
            "It draws other numbers at each start.",
            "Give it one: np.random.default_rng(0), random.Random(0).",
            places_of(own),
        )
    shared = [hint for hint in project.hints if hint.kind == "global"]
    if shared and not seeds_all and not {"numpy.random.seed", "random.seed"} & seeded:
        yield Finding(
            "stops",
            "script",
            "numpy's or Python's own random numbers are drawn without a seed",
            "torch.manual_seed does not seed them.",
            "relume.seed_everything(0) seeds torch, numpy and random; so does seed=0 of Run and Trainer.",
            places_of(shared),
        )
