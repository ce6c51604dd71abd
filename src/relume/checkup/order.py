"""Rules about order: of sets, of files, of loaders, of workers."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from relume.checkup.findings import Finding
from relume.checkup.project import Call, Project, name_of, parents_of, place_of, places_of, scopes
from relume.rehearse.scan import GENERATORS, Source, constructor

_ORDERLESS = {"sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset", "Counter", "bool"}
_LISTING = {"os.listdir", "os.scandir", "glob.glob", "glob.iglob", "os.walk"}
_LISTING_METHODS = {"iterdir", "glob", "rglob"}


def sets(project: Project) -> Iterator[Finding]:
    found = []
    for source in project.sources:
        parents = parents_of(source.tree)
        made = {
            target.id
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Assign) and _is_set(source, node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(source.tree):
            is_set = _is_set(source, node) or (
                isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in made
            )
            if is_set and _is_ordered_by(source, node, parents):
                found.append(place_of(source, node))
    if found:
        yield Finding(
            "may",
            "script",
            "the order of a set is used",
            "Sets of texts have another order at each start of Python.",
            "Sort it: for name in sorted(names).",
            tuple(dict.fromkeys(found)),
        )


def _is_set(source: Source, node: ast.AST) -> bool:
    if isinstance(node, ast.Set):
        return not all(isinstance(e, ast.Constant) and isinstance(e.value, (int, float)) for e in node.elts)
    if isinstance(node, ast.SetComp):
        return True
    return isinstance(node, ast.Call) and source.called(node) in ("set", "frozenset") and bool(node.args)


def _is_ordered_by(source: Source, node: ast.AST, parents: dict[int, ast.AST]) -> bool:
    """Whether the order in which ``node`` is iterated over reaches something that has one."""
    parent = parents.get(id(node))
    if isinstance(parent, (ast.For, ast.AsyncFor)):
        return parent.iter is node and _keeps(parent)
    if isinstance(parent, ast.comprehension):
        outer = parents.get(id(parent))
        around = parents.get(id(outer)) if outer is not None else None
        if isinstance(outer, (ast.SetComp, ast.DictComp)):
            return False
        return not (isinstance(around, ast.Call) and source.called(around).rpartition(".")[2] in _ORDERLESS)
    if isinstance(parent, ast.Call) and node in parent.args:
        name = source.called(parent).rpartition(".")[2]
        if name in ("list", "tuple", "enumerate", "iter", "join", "zip"):
            around = parents.get(id(parent))
            return not (isinstance(around, ast.Call) and source.called(around).rpartition(".")[2] in _ORDERLESS)
    return False


_KEEPING = {"append", "extend", "add_module", "put", "write"}


def _keeps(loop: ast.For | ast.AsyncFor) -> bool:
    """Whether the body of a loop appends, yields or numbers what it is given."""
    counted = {
        node.target.id
        for node in ast.walk(loop)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name)
    }
    for node in ast.walk(loop):
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _KEEPING:
            return True
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):  # table[name] = len(table)
            value = node.value
            if isinstance(value, ast.Name) and value.id in counted:
                return True
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "len":
                return True
    return False


def hashes(project: Project) -> Iterator[Finding]:
    inside = {
        id(node)
        for source in project.sources
        for scope in scopes(source)
        if getattr(scope, "name", "") == "__hash__"
        for node in ast.walk(scope)
    }
    found = [call for call in project.calls if call.name == "hash" and id(call.node) not in inside]
    if found:
        yield Finding(
            "may",
            "script",
            "hash() is used as a number",
            "For texts it is another one at each start of Python.",
            "zlib.crc32(text.encode()) stays the same.",
            places_of(found),
        )


def listings(project: Project) -> Iterator[Finding]:
    found = []
    for source in project.sources:
        parents = parents_of(source.tree)
        sorted_later = {
            name_of(call.node.func.value)
            for call in project.calls
            if call.source is source and call.short == "sort" and isinstance(call.node.func, ast.Attribute)
        } | {name_of(a) for call in project.calls if call.name == "sorted" for a in call.node.args}
        for call in project.calls:
            if call.source is source and _is_listing(call) and _is_unsorted(source, call.node, parents, sorted_later):
                found.append(call)
    if found:
        yield Finding(
            "may",
            "script",
            "files are taken in the order in which the disk has them",
            "It is another one on another disk, and so is what is first, split off or shuffled.",
            "Sort them: sorted(folder.glob(…)).",
            places_of(found),
        )


def _is_listing(call: Call) -> bool:
    is_method = isinstance(call.node.func, ast.Attribute) and call.short in _LISTING_METHODS
    return call.name in _LISTING or (is_method and not call.name.startswith(("glob.", "torch.")))


def _is_unsorted(source: Source, node: ast.AST, parents: dict[int, ast.AST], sorted_later: set[str]) -> bool:
    if _is_ordered_by(source, node, parents):
        above = parents.get(id(node))
        while above is not None and not isinstance(above, ast.stmt):
            if isinstance(above, ast.Call) and source.called(above).rpartition(".")[2] in _ORDERLESS:
                return False
            above = parents.get(id(above))
        return not (isinstance(above, ast.Assign) and any(name_of(target) in sorted_later for target in above.targets))
    parent = parents.get(id(node))
    if isinstance(parent, ast.Assign):
        names = {name_of(target) for target in parent.targets}
        return not names & sorted_later and _is_used_in_order(source, names, parents)
    return isinstance(parent, ast.Return)


def _is_used_in_order(source: Source, names: set[str], parents: dict[int, ast.AST]) -> bool:
    """Whether a variable is read anywhere but in sum, len and their like."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
            above = parents.get(id(node))
            while above is not None and not isinstance(above, ast.stmt):
                if isinstance(above, ast.Call) and source.called(above).rpartition(".")[2] in _ORDERLESS:
                    break
                above = parents.get(id(above))
            else:
                return True
    return False


def loaders(project: Project) -> Iterator[Finding]:
    """A shuffled loader that is read without relume's stream."""
    if not project.trains:
        return
    found = []
    for source in project.sources:
        shuffled = {
            name_of(target)
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            for target in node.targets
            if _is_shuffled(Call(source, node.value, source.called(node.value)))
        } - {""}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.For) and _iterated(source, node.iter) in shuffled:
                found.append(place_of(source, node))
    if found:
        yield Finding(
            "note",
            "script",
            "the order of a shuffled loader hangs on all random numbers drawn before",
            "One more line that draws a number, and all batches are others; a run that is stopped cannot go on exactly.",
            "Read it through relume: for x, y in run.batches(loader). Or give DataLoader a generator with a seed.",
            tuple(found),
        )


def _is_shuffled(call: Call) -> bool:
    shuffle = call.keyword("shuffle")
    is_on = isinstance(shuffle, ast.Constant) and shuffle.value is True
    return call.short == "DataLoader" and is_on and call.keyword("generator") is None


def _iterated(source: Source, node: ast.AST) -> str:
    while isinstance(node, ast.Call) and node.args and source.called(node).rpartition(".")[2] in ("enumerate", "tqdm"):
        node = node.args[0]
    return name_of(node) or "-"


def of_workers(project: Project) -> Iterator[Finding]:
    """A dataset with a random generator of its own, in several workers."""
    has_workers = any(
        call.short == "DataLoader"
        and (count := call.keyword("num_workers")) is not None
        and not (isinstance(count, ast.Constant) and not count.value)
        for call in project.calls
    )
    if not has_workers or any(call.keyword("worker_init_fn") is not None for call in project.calls):
        return
    found = []
    for source in project.sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and {getattr(m, "name", "") for m in node.body} & _OF_DATASETS:
                kept = [
                    n for n in ast.walk(node) if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Attribute)
                ]
                found += [place_of(source, n) for n in kept if constructor(source, n.value) in GENERATORS]
    if found:
        yield Finding(
            "may",
            "script",
            "a dataset holds a random generator, and workers each have a copy of it",
            "All workers draw the same numbers, and with another number of workers the data is another.",
            "Draw from torch's, numpy's or Python's global generator: relume seeds these for each batch.",
            tuple(found),
        )


_OF_DATASETS = {"__getitem__", "__iter__", "__getitems__"}
