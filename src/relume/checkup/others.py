"""Rules about what others have and how they would look at it: files, pickles, evaluation, arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from relume.checkup.findings import Finding
from relume.checkup.project import Project, parents_of, place_of, places_of
from relume.provenance.machine import is_kept
from relume.rehearse.scan import Source


def pickles(project: Project) -> Iterator[Finding]:
    found = []
    for call in project.calls:
        only = call.keyword("weights_only")
        is_open = call.name == "torch.load" and isinstance(only, ast.Constant) and only.value is False
        if is_open or call.name in ("pickle.load", "joblib.load", "dill.load", "cloudpickle.load"):
            found.append(call)
    if found:
        yield Finding(
            "may",
            "script",
            "a pickle is read that may hold any code",
            "It needs the very classes it was written with, and others will not want to run it.",
            "relume.load_weights and relume.load_model read such files without running what is in them.",
            places_of(found),
        )


_ABSOLUTE = re.compile(r"(?:/[\w.@+ -]+){2,}/?|~/[\w.@+/ -]+|[A-Za-z]:[\\/][\w.@+ \\/-]+")
_EVERYWHERE = ("/dev/", "/proc/", "/sys/", "/usr/", "/bin/", "/etc/", "/tmp/")


def absolute_paths(project: Project) -> Iterator[Finding]:
    found = []
    for source in project.sources:
        parents = parents_of(source.tree)
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or len(node.value) > 300:
                continue
            parent = parents.get(id(node))
            is_text = isinstance(parent, (ast.Expr, ast.JoinedStr, ast.Compare))  # a docstring, a part of a text
            is_print = isinstance(parent, ast.Call) and source.called(parent).rpartition(".")[2] in _NOT_OPENING
            if is_text or is_print or node.value.startswith(_EVERYWHERE):
                continue
            if _ABSOLUTE.fullmatch(node.value):
                found.append(place_of(source, node))
    if found:
        yield Finding(
            "may",
            "script",
            "paths of this machine are written into the script",
            "Others do not have them.",
            "Take them as an argument, or name data by relume.datasets.load(NAME), which finds or fetches it.",
            tuple(dict.fromkeys(found)),
        )


_NOT_OPENING = {
    "print",
    "startswith",
    "endswith",
    "split",
    "replace",
    "get",
    "route",
    "compile",
    "match",
    "search",
    "sub",
}


def evaluation(project: Project) -> Iterator[Finding]:
    """No gradient is wanted, the model has layers that behave differently in training, and nobody says eval()."""
    names = {call.short for call in project.calls}
    trains_otherwise = any(re.match(r"(Alpha|Feature)?Dropout|BatchNorm|SyncBatchNorm|drop", name) for name in names)
    if not trains_otherwise or "eval" in names or _says_train_false(project):
        return
    found = []
    for source in project.sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.With) and any(
                source.called(item.context_expr) in ("torch.no_grad", "torch.inference_mode") for item in node.items
            ):
                inside = _calls_of_models(source, node)
                found += [place_of(source, call) for call in inside[:1]]
    if found:
        yield Finding(
            "may",
            "script",
            "the model is asked without gradients, and nobody calls model.eval()",
            "Dropout draws and batch norm uses the batch at hand: the numbers hang on chance and on the size of batches.",
            "model.eval() before, model.train() after; relume.evaluate does both.",
            tuple(found),
        )


def _calls_of_models(source: Source, block: ast.AST) -> list[ast.Call]:
    """Calls of something that is called a model or a network."""
    return [
        node
        for node in ast.walk(block)
        if isinstance(node, ast.Call)
        and re.fullmatch(r"(.*\.)?(self\.)?(\w*_)?(model|net|network|classifier)", source.called(node))
    ]


def _says_train_false(project: Project) -> bool:
    return any(
        call.short == "train"
        and call.node.args
        and isinstance(call.node.args[0], ast.Constant)
        and not call.node.args[0].value
        for call in project.calls
    )


_OF_MACHINE = {
    "os.cpu_count",
    "multiprocessing.cpu_count",
    "torch.cuda.device_count",
    "psutil.cpu_count",
    "os.getloadavg",
}


def defaults(project: Project) -> Iterator[Finding]:
    """Settings that hang on the machine or the environment, and change the training."""
    found = []
    for call in project.calls:
        value = call.keyword("default") if call.short == "add_argument" else None
        name = " ".join(str(a.value) for a in call.node.args if isinstance(a, ast.Constant))
        if value is not None and not re.search(r"worker|device|job|thread|process", name):
            inner = {
                call.source.called(node) for node in ast.walk(value) if isinstance(node, (ast.Call, ast.Attribute))
            }
            if inner & (_OF_MACHINE | {"torch.cuda.is_available", "os.getenv", "os.environ", "os.environ.get"}):
                found.append(call.place)
    if found:
        yield Finding(
            "may",
            "script",
            "the default of an argument hangs on the machine or its environment",
            "The same command is then another training elsewhere, and the command that a run keeps does not say so.",
            "Give such arguments fixed defaults, or pass config=vars(args) to Run or fit, which keeps their values.",
            tuple(found),
        )
    variables = []
    for call in project.calls:
        first = call.node.args[0] if call.node.args else None
        is_read = call.name in ("os.getenv", "os.environ.get")
        if is_read and isinstance(first, ast.Constant) and not is_kept(str(first.value)):
            variables.append(call)
    if variables and not found:
        yield Finding(
            "note",
            "script",
            "variables of the environment are read that a run does not keep",
            "Runs keep those that matter to every training, and no others: they may be secrets.",
            "Put their values into config= where they change the training.",
            places_of(variables),
        )
