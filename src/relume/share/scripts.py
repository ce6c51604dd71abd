"""What of a script makes a class of it: its definition and what that needs, and nothing of the training below it."""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType

_MUTABLE = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr)


@dataclass(frozen=True)
class _Statement:
    node: ast.stmt
    binds: frozenset[str]
    uses: frozenset[str]
    changes: str
    """The name whose items, attributes or methods it is about: ``CONFIG["width"] = 3``."""


class Script:
    """The statements at the top level of a script.

    Args:
        source: its text.
        filename: for tracebacks.

    Raises:
        SyntaxError: it is none, or of another Python.

    Example:
        >>> script = Script("import torch\\nWIDTH = 3\\nclass Net: size = WIDTH\\ntorch.train_for_days()", "train.py")
        >>> space = {}
        >>> for code in script.needed(["Net"]):
        ...     exec(code, space)
        >>> space["Net"].size, "torch" in space
        (3, False)
    """

    def __init__(self, source: str, filename: str) -> None:
        tree = ast.parse(source, filename)
        self._filename = filename
        self._statements = [_looked_at(node) for node in tree.body]
        self._done: set[int] = set()

    def needed(self, names: Iterable[str]) -> Iterator[CodeType]:
        """The code of the statements that these names need, in their order; those that were given before are left out.

        A statement below ``if __name__ == "__main__"`` is never among them, and of the others only those are that bind a
        name which a wanted definition uses, or change what it holds.
        """
        chosen = self._closure(set(names))
        for number in sorted(chosen - self._done):
            self._done.add(number)
            nodes = [one.node for one in self._statements if _is_future(one.node)] + [self._statements[number].node]
            yield compile(ast.Module(nodes, []), self._filename, "exec", dont_inherit=True)

    def defines(self, name: str) -> bool:
        """Whether a statement that may run binds the name."""
        return any(name in one.binds for one in self._statements)

    def _closure(self, wanted: set[str]) -> set[int]:
        chosen = {number for number, one in enumerate(self._statements) if "*" in one.binds}
        while True:
            kinds = {name: type(self._statements[number].node) for number in chosen for name in self._binds(number)}
            found = {
                number
                for number, one in enumerate(self._statements)
                if one.binds & wanted or (one.changes in wanted and _belongs(one.node, kinds.get(one.changes)))
            }
            if found <= chosen:
                return chosen
            chosen |= found
            wanted = wanted.union(*(self._statements[number].uses for number in found))

    def _binds(self, number: int) -> frozenset[str]:
        return self._statements[number].binds


def _belongs(node: ast.stmt, owner: type[ast.stmt] | None) -> bool:
    """Whether a change belongs to what it changes: a setting does, and a call on data; a class or a module may do anything."""
    if isinstance(node, ast.Expr):
        return owner in (ast.Assign, ast.AnnAssign)
    return owner in (ast.Assign, ast.AnnAssign, ast.ClassDef, ast.FunctionDef)


def _looked_at(node: ast.stmt) -> _Statement:
    if isinstance(node, ast.If) and _asks_for_main(node.test):
        return _Statement(node, frozenset(), frozenset(), "")
    if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
        return _Statement(node, frozenset("*"), frozenset(), "")
    table = symtable.symtable(ast.unparse(node), "", "exec")
    binds = frozenset(one.get_name() for one in table.get_symbols() if one.is_assigned() or one.is_imported())
    return _Statement(node, binds, frozenset(_globals(table)), _changed(node) if isinstance(node, _MUTABLE) else "")


def _asks_for_main(test: ast.expr) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "__name__" for one in ast.walk(test))


def _globals(table: symtable.SymbolTable) -> Iterator[str]:
    for one in table.get_symbols():
        if one.is_referenced() and (table.get_type() == "module" or one.is_global()):
            yield one.get_name()
    for inner in table.get_children():
        yield from _globals(inner)


def _changed(node: ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Expr) -> str:
    if isinstance(node, ast.Expr):
        place: ast.expr = node.value.func if isinstance(node.value, ast.Call) else node.value
    else:
        place = node.targets[0] if isinstance(node, ast.Assign) else node.target
    is_inner = isinstance(place, (ast.Attribute, ast.Subscript))
    while isinstance(place, (ast.Attribute, ast.Subscript)):
        place = place.value
    return place.id if is_inner and isinstance(place, ast.Name) else ""


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"
