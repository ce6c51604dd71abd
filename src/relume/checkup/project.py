"""A script and what it imports, as text, with what the rules ask of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from relume.checkup.findings import Place
from relume.rehearse import scan
from relume.rehearse.scan import Hint, Source

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = ast.Module | Function

SEEDING = {"manual_seed", "seed_everything", "set_seed", "fix_seed", "fix_seeds"}
_ONLY_GLOBAL = SEEDING - {"manual_seed"}
_OF_TORCH = {"torch.manual_seed", "torch.random.manual_seed", "torch.cuda.manual_seed_all", "torch.cuda.manual_seed"}
TRAINING = {"Run", "Trainer", "fit_heads"}


@dataclass(frozen=True)
class Call:
    """A call, with the full name of what is called: ``torch.nn.Linear``."""

    source: Source
    node: ast.Call
    name: str

    @property
    def short(self) -> str:
        return self.name.rpartition(".")[2]

    def keyword(self, name: str) -> ast.expr | None:
        return next((keyword.value for keyword in self.node.keywords if keyword.arg == name), None)

    @property
    def place(self) -> Place:
        return place_of(self.source, self.node)


@dataclass
class Project:
    """The files, the script first; those that are no Python are in ``unread``."""

    sources: list[Source] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)

    @classmethod
    def read(cls, files: Sequence[Path]) -> Project:
        sources = list(scan.read(files))
        known = {source.path for source in sources}
        return cls(sources, [path for path in files if path not in known])

    @cached_property
    def files(self) -> list[Path]:
        return [source.path for source in self.sources]

    @cached_property
    def calls(self) -> list[Call]:
        return [call for source in self.sources for call in calls_in(source, source.tree)]

    @cached_property
    def hints(self) -> list[Hint]:
        """What `relume.rehearse` finds of the kind that differs at each start."""
        return scan.nondeterministic(self.files)

    @cached_property
    def own_modules(self) -> set[str]:
        """Names of the project's classes that are modules of torch, also by way of each other."""
        bases = {
            node.name: {source.called(base).rpartition(".")[2] for base in node.bases}
            for source in self.sources
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ClassDef)
        }
        found = {name for name, of in bases.items() if of & {"Module", "Sequential"}}
        for _ in bases:
            found |= {name for name, of in bases.items() if of & found}
        return found

    @cached_property
    def seeding_functions(self) -> set[str]:
        """Names of functions of the project that seed torch, and of those that are known to."""
        own = {
            function.name
            for source in self.sources
            for function in functions_of(source.tree)
            if any(call.name in _OF_TORCH or call.short in SEEDING for call in calls_in(source, function))
        }
        return own | SEEDING

    def seeds_torch(self, call: Call) -> bool:
        """Whether a call seeds torch at once."""
        if call.name in _OF_TORCH:
            return True
        if call.short in _ONLY_GLOBAL:  # pl.seed_everything, accelerate.utils.set_seed
            return True
        is_plain = isinstance(call.node.func, ast.Name)  # and not generator.manual_seed(0)
        module = call.name.rpartition(".")[0].rpartition(".")[2]
        is_own = module in {source.path.stem for source in self.sources}  # utils.fix(0)
        return (is_plain or is_own or call.name.startswith("relume.")) and call.short in self.seeding_functions

    @cached_property
    def explicit_seeds(self) -> list[Call]:
        return [call for call in self.calls if self.seeds_torch(call)]

    @cached_property
    def run_seeds(self) -> list[Call]:
        """Runs and Trainers that are given a seed: they seed when the training begins."""
        return [call for call in self.calls if call.short in TRAINING and call.keyword("seed") is not None]

    @cached_property
    def trains(self) -> bool:
        """Whether the script trains, itself or by a function or class that it names in what it imports."""
        return any(_trains(call) for source, block in self._reached() for call in calls_in(source, block))

    def _reached(self) -> Iterator[tuple[Source, ast.AST]]:
        defined: dict[str, list[tuple[Source, ast.AST]]] = {}
        for source in self.sources[1:]:
            for node in source.tree.body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    defined.setdefault(node.name, []).append((source, node))
        waiting: list[tuple[Source, ast.AST]] = [(source, source.tree) for source in self.sources[:1]]
        while waiting:
            source, block = waiting.pop()
            yield source, block
            for name in scan.names_in(block) & defined.keys():
                waiting += defined.pop(name)

    @cached_property
    def is_deterministic(self) -> bool:
        """Whether the script turns deterministic algorithms on."""
        for call in self.calls:
            if call.short == "use_deterministic_algorithms":
                return True
            wanted = call.keyword("deterministic")
            if wanted is not None and not (isinstance(wanted, ast.Constant) and not wanted.value):
                return True
        return False


def _trains(call: Call) -> bool:
    if call.short == "Run":
        return call.keyword("model") is not None or call.keyword("optimizer") is not None
    return call.short in ("backward", *TRAINING)


def name_of(node: ast.AST) -> str:
    """The name of a variable or an attribute, else ""."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def calls_in(source: Source, block: ast.AST) -> list[Call]:
    return [Call(source, node, source.called(node)) for node in ast.walk(block) if isinstance(node, ast.Call)]


def functions_of(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def scopes(source: Source) -> Iterator[Scope]:
    """The module, and each function."""
    yield source.tree
    yield from functions_of(source.tree)


def in_scope(source: Source, scope: Scope) -> list[Call]:
    """The calls of a scope itself, without those in functions and classes that it defines, by their lines."""
    found: list[Call] = []
    waiting: list[ast.AST] = list(scope.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call):
            found.append(Call(source, node, source.called(node)))
        waiting += ast.iter_child_nodes(node)
    return sorted(found, key=lambda call: (call.node.lineno, call.node.col_offset))


def place_of(source: Source, node: ast.AST) -> Place:
    hint = source.hint("time", node)
    return Place(hint.file.name, hint.line, hint.code)


def places_of(found: Iterable[Hint | Call]) -> tuple[Place, ...]:
    """The places of hints or calls, each line once, by file and line."""
    places = (Place(f.file.name, f.line, f.code) if isinstance(f, Hint) else f.place for f in found)
    return tuple(dict.fromkeys(places))


def parents_of(tree: ast.AST) -> dict[int, ast.AST]:
    """The parent of each node, by the node's id."""
    return {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
