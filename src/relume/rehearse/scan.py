"""What a script's source says about where a difference may come from. It is read as text and never run."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "time", "entropy", "unseeded", "global", "set",  # make two undisturbed runs differ
    "generator", "average", "accumulator", "iterator", "object", "file",  # get lost in a kill
]  # fmt: skip

_FILES_LIMIT = 200
_OWN_CODE = Path(__file__).resolve().parents[1]
_TIME = {
    "time.time", "time.time_ns", "time.perf_counter", "time.perf_counter_ns", "time.monotonic", "time.monotonic_ns",
    "time.process_time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today",
}  # fmt: skip
_ENTROPY = {
    "os.urandom",
    "os.getpid",
    "uuid.uuid1",
    "uuid.uuid4",
    "random.SystemRandom",
    "torch.seed",
    "torch.random.seed",
}
_UNSEEDED = {
    "numpy.random.default_rng", "numpy.random.RandomState", "numpy.random.seed", "numpy.random.PCG64", "random.Random",
    "random.seed",
}  # fmt: skip
GENERATORS = {
    "numpy.random.default_rng", "numpy.random.Generator", "numpy.random.RandomState", "random.Random", "torch.Generator",
}  # fmt: skip
_STATES = {"numpy.random.get_state", "numpy.random.set_state", "random.getstate", "random.setstate"}  # draw nothing
_ITERATORS = {"itertools.count", "itertools.cycle", "iter"}
_SETS = {"set", "frozenset", "hash"}
_ORDERED = {"DataLoader", "RandomSampler", "SubsetRandomSampler", "WeightedRandomSampler", "random_split"}
_CHANGING = {"append", "extend", "add", "update", "insert", "pop", "popleft", "appendleft", "remove", "clear"}
_TAKERS = {"Run", "Trainer", "fit", "Generator"}  # what is passed to these is cared for (Generator wraps another one)
_STATELESS_BASES = {"Module", "Dataset", "IterableDataset", "NamedTuple", "Enum", "StrEnum", "Exception", "Protocol"}


@dataclass(frozen=True)
class Hint:
    """A place in the source that can explain a difference.

    Attributes:
        name: the variable it is about; empty where there is none.
    """

    kind: Kind
    file: Path
    line: int
    code: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.file.name}:{self.line}: {self.code}"


def nondeterministic(files: Sequence[Path]) -> list[Hint]:
    """Places whose result is another one at each start."""
    return [hint for source in read(files) for hint in _nondeterministic(source)]


def untracked(files: Sequence[Path]) -> list[Hint]:
    """Objects that change while training and are passed to no Run or Trainer."""
    return [hint for source in read(files) for hint in _untracked(source)]


def logged_names(files: Sequence[Path], metric: str) -> set[str]:
    """The variables in the expressions that are logged as ``metric``."""
    found = set()
    for source in read(files):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == metric:
                        found |= names_in(value)
    return found


def sources(script: str, is_module: bool, directory: Path) -> list[Path]:
    """The script's file and the files of the project that it imports, the script first."""
    start = _module_file(script, [directory, directory / "src"]) if is_module else directory / script
    if start is None or not start.is_file():
        return []
    found, waiting = {start.resolve(): None}, [start.resolve()]
    while waiting and len(found) < _FILES_LIMIT:
        path = waiting.pop()
        for name in _imports(path):
            file = _module_file(name, [start.resolve().parent, path.parent, directory, directory / "src"])
            if file is not None and file.resolve() not in found:
                found[file.resolve()] = None
                waiting.append(file.resolve())
    return list(found)


def _imports(path: Path) -> Iterator[str]:
    for source in read([path]):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                yield from (name for name in (base, *(f"{base}.{a.name}".strip(".") for a in node.names)) if name)


def _module_file(name: str, folders: Sequence[Path]) -> Path | None:
    place = Path(*name.split("."))
    for folder in folders:
        for path in (folder / place.with_suffix(".py"), folder / place / "__main__.py", folder / place / "__init__.py"):
            if path.is_file() and not path.resolve().is_relative_to(_OWN_CODE):
                return path
    return None


# ------------------------------------------------------------------------------------------------------------- parsing


@dataclass(frozen=True)
class Source:
    path: Path
    text: list[str]
    tree: ast.Module
    aliases: dict[str, str]

    def hint(self, kind: Kind, node: ast.AST, name: str = "") -> Hint:
        line = getattr(node, "lineno", 1)
        return Hint(kind, self.path, line, self.text[line - 1].strip()[:100], name)

    def called(self, node: ast.AST) -> str:
        """The full name of what a call calls: ``np.random.rand(3)`` is ``numpy.random.rand``."""
        parts = []
        target = node.func if isinstance(node, ast.Call) else node
        while isinstance(target, ast.Attribute):
            parts.append(target.attr)
            target = target.value
        if not isinstance(target, ast.Name):
            return "." + ".".join(reversed(parts))
        return ".".join((self.aliases.get(target.id, target.id), *reversed(parts)))


def read(files: Sequence[Path]) -> Iterator[Source]:
    for path in files:
        try:
            with tokenize.open(path) as file:  # as Python does: a mark of the encoding counts
                text = file.read()
            tree = ast.parse(text)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        aliases: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {a.asname: a.name for a in node.names if a.asname}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        yield Source(path, text.splitlines(), tree, aliases)


def names_in(node: ast.AST) -> set[str]:
    """Variables that occur in an expression, attributes by their last name."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


# ------------------------------------------------------------------------------------------------------ nondeterminism


def _nondeterministic(source: Source) -> Iterator[Hint]:
    calls = [(node, source.called(node)) for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    names = {name for _, name in calls}
    is_seeded = any(name.endswith("seed_everything") for name in names) or any(
        keyword.arg == "seed" for node, name in calls if name.split(".")[-1] in _TAKERS for keyword in node.keywords
    )
    for node, name in calls:
        has_seed = bool(node.args or node.keywords) and not _is_none(node.args[0] if node.args else None)
        library = name.rpartition(".")[0]
        if name in _TIME:
            yield source.hint("time", node)
        elif name in _ENTROPY or library == "secrets":
            yield source.hint("entropy", node)
        elif name in _UNSEEDED and not has_seed:
            yield source.hint("unseeded", node)
        elif name.endswith(".seed") and library not in ("numpy.random", "random") and not node.args:
            yield source.hint("entropy", node)  # generator.seed() draws one from the system
        elif library in ("numpy.random", "random") and name not in GENERATORS | _UNSEEDED | _STATES and not is_seeded:
            if f"{library}.seed" not in names:
                yield source.hint("global", node)
        elif name in _SETS:
            yield source.hint("set", node)
    yield from (source.hint("set", n) for n in ast.walk(source.tree) if isinstance(n, (ast.Set, ast.SetComp)))


def _is_none(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


# ------------------------------------------------------------------------------------------------------ untracked state


def _untracked(source: Source) -> Iterator[Hint]:
    cared_for = _cared_for(source)
    classes = _stateful_classes(source)
    busy = _used_while_training(source)
    for name, node in _assignments_in(source.tree):
        if name in cared_for:
            continue
        called = constructor(source, node.value)
        short = called.rpartition(".")[2]
        kind: Kind | None = None
        if called in GENERATORS:
            kind = "generator"
        elif "average" in short.lower() or "ema" in _words(short):
            kind = "average"
        elif called in _ITERATORS:
            kind = "iterator"
        elif short in classes:
            kind = "object"
        if kind is not None and name in busy:
            yield source.hint(kind, node, name)
    yield from (hint for hint in _accumulators(source) if hint.name not in cared_for)
    for call in ast.walk(source.tree):
        if isinstance(call, ast.Call) and source.called(call).rpartition(".")[2] == "open" and _appends(call):
            yield source.hint("file", call)


def constructor(source: Source, value: ast.AST | None) -> str:
    """What an expression calls; of ``torch.Generator().manual_seed(0)`` the first."""
    while (
        isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Call)
    ):
        value = value.func.value
    return source.called(value) if isinstance(value, ast.Call) else ""


def _words(name: str) -> set[str]:
    """``ModelEMA`` and ``EmaHelper`` have the word ema, ``Schema`` has not."""
    words, word = set(), ""
    for before, letter in zip(" " + name, name, strict=False):
        if letter == "_" or (letter.isupper() and not before.isupper()):
            words.add(word.lower())
            word = ""
        word += letter.strip("_")
    return words | {word.lower()}


def _cared_for(source: Source) -> set[str]:
    """Names that are passed to a Run or Trainer, or only decide the order of a loader, which relume does itself."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and source.called(node).rpartition(".")[2] in _TAKERS:
            for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
                found |= names_in(argument)
    return found


def _assignments_in(block: ast.AST) -> Iterator[tuple[str, ast.Assign | ast.AnnAssign]]:
    for node in ast.walk(block):
        targets: list[ast.expr]
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        for made in targets:
            if isinstance(made, ast.Name):
                yield made.id, node
            elif isinstance(made, ast.Attribute):
                yield made.attr, node


def _used_while_training(source: Source) -> set[str]:
    """Names used in a loop, or in a function that did not make them; a loader's own generator is not among them."""
    found: set[str] = set()
    for block in ast.walk(source.tree):
        if isinstance(block, (ast.For, ast.While)):
            found |= _used(source, block)
        elif isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            made = {name for name, _ in _assignments_in(block)}
            found |= _used(source, block) - made
    return found


def _used(source: Source, block: ast.AST) -> set[str]:
    skipped = {
        id(keyword.value)
        for node in ast.walk(block)
        if isinstance(node, ast.Call) and source.called(node).rpartition(".")[2] in _ORDERED
        for keyword in node.keywords
        if keyword.arg == "generator"
    }
    found = set()
    for node in ast.walk(block):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in skipped:
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
    return found


def _stateful_classes(source: Source) -> set[str]:
    """Classes of the script whose methods change their objects."""
    found = set()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {source.called(base).rpartition(".")[2] for base in node.bases}
        methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name != "__init__"]
        if not bases & _STATELESS_BASES and any(_changes_self(method) for method in methods):
            found.add(node.name)
    return found


def _changes_self(method: ast.FunctionDef) -> bool:
    own = method.args.args[0].arg if method.args.args else ""
    for node in ast.walk(method):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and own in names_in(node.value):
            return True
        call = node.func if isinstance(node, ast.Call) else None
        if isinstance(call, ast.Attribute) and call.attr in _CHANGING and own in names_in(call.value):
            return True
    return False


def _accumulators(source: Source) -> Iterator[Hint]:
    """Numbers and containers that grow in the loop over ``run.epochs`` or ``run.batches``, or that functions change."""
    seen: set[str] = set()
    for block in ast.walk(source.tree):
        if isinstance(block, ast.For) and _is_over_run(block.iter):
            fresh = {n.id for s in block.body for n in _stored(s)}
            inside = block.body
        elif isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef)):
            outer = {name for n in ast.walk(block) if isinstance(n, (ast.Global, ast.Nonlocal)) for name in n.names}
            fresh = {n.id for s in ast.walk(block) for n in _stored(s)} - outer
            fresh |= {argument.arg for argument in (*block.args.args, *block.args.kwonlyargs)}
            inside = block.body
        else:
            continue
        for statement in inside:
            for name, node in _changes(statement):
                if name not in fresh and name not in seen:
                    seen.add(name)
                    yield source.hint("accumulator", node, name)


def _is_over_run(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Attribute) and n.attr in ("epochs", "batches") for n in ast.walk(node))


def _stored(statement: ast.AST) -> Iterator[ast.Name]:
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.For, ast.NamedExpr)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            yield from (n for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))


def _changes(block: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Variables that a statement adds to in place."""
    for node in ast.walk(block):
        target: ast.AST | None = None
        if isinstance(node, ast.AugAssign):
            target = node.target
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            target = node.func.value
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            target = node.value
        while isinstance(target, ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name):
            yield target.id, node


def _appends(node: ast.Call) -> bool:
    modes = (*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode"))
    return any(
        isinstance(m, ast.Constant) and isinstance(m.value, str) and m.value in ("a", "ab", "at", "a+") for m in modes
    )
