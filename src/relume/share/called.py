"""How a model is built that a script made without `relume.build`: by the one plain call of its class that the code has."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from torch import nn

from relume.errors import RecipeError, RelumeError
from relume.share.documents import CODE_FOLDER
from relume.share.gather import Source
from relume.share.network import own_code
from relume.share.sources import Sources
from relume.share.trust import Code, Tree, renamed


@dataclass(frozen=True)
class Call:
    """``Net(10, width=32)`` in the code, with arguments that stand there as they are.

    Attributes:
        file: where the class is defined, below the code's folder.
        text: the call, for messages.
    """

    file: str
    name: str
    text: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class NotToldError(Exception):
    """Why the code does not tell how the model is built."""


def with_recipe(source: Source, instance: nn.Module | None, code: Sources, *, trust: bool) -> tuple[Source, str]:
    """The source with the recipe of a model that was built without one, as far as its code tells it.

    Args:
        instance: the model itself, where the author's process has it: its own class is called then.
        trust: the class may be had by running its definition out of the code.

    Returns:
        The source, and what to do where there is still no recipe: empty where there is one.
    """
    try:
        calls = list(plain_calls(code))
        if instance is not None:
            calls = [call for call in calls if call.name == type(instance).__qualname__]
        calls = _of_kind(calls, source)
        if not calls:
            raise NotToldError("Its code has no class of modules that is called with plain arguments, as Net(32)")
        if instance is None and not trust:
            first = calls[0]
            raise NotToldError(
                f"Its code has {first.text} in {CODE_FOLDER}{first.file}: add --trust (trust=True), which runs the definition of "
                "that class to build it"
            )
        return replace(source, found=_only(source, instance, code, calls)), ""
    except NotToldError as error:
        return source, str(error)


def plain_calls(code: Sources) -> Iterator[Call]:
    """The calls of the code's own classes whose arguments are literals; of a class that is called otherwise too, none."""
    parsed = {path.removeprefix(CODE_FOLDER): _parsed(content) for path, content in code.files.items()}
    trees = {path: tree for path, tree in parsed.items() if tree is not None}
    classes = {
        node.name: path
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.bases
    }
    found: dict[str, dict[str, Call | None]] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            name = _called(node)
            if isinstance(node, ast.Call) and name in classes:
                found.setdefault(name, {})[ast.unparse(node)] = _call(node, name, classes[name])
    for texts in found.values():
        [first, *others] = texts.values()
        if first is not None and not others:
            yield first


def _parsed(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _called(node: ast.AST) -> str:
    function = node.func if isinstance(node, ast.Call) else None
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _call(node: ast.Call, name: str, file: str) -> Call | None:
    try:
        args = tuple(ast.literal_eval(one) for one in node.args)
        kwargs = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords if one.arg is not None}
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return None if len(kwargs) < len(node.keywords) else Call(file, name, ast.unparse(node), args, kwargs)


def _of_kind(calls: list[Call], source: Source) -> list[Call]:
    """Those of the class that the run's configuration names, where it names one of them."""
    named = [call for call in calls if call.name == source.config.get("model")]
    return named or calls


def _only(source: Source, instance: nn.Module | None, code: Sources, calls: list[Call]) -> dict[str, Any]:
    own = own_code(code) if instance is None else None
    made: list[tuple[Call, dict[str, Any]]] = []
    problems: list[str] = []
    for call in calls:
        try:
            made.append((call, _document(source, instance, own, call)))
        except RelumeError as error:
            problems.append(f"{call.text}: {' '.join(str(error).split())}")
        except Exception as error:  # its code may raise anything
            problems.append(f"{call.text} fails with {type(error).__name__}: {error!s:.200}")
    if len(made) != 1:
        several = " and ".join(call.text for call, _ in made)
        raise NotToldError(
            f"Both {several} have such weights"
            if made
            else "Its code does not build it: " + source.portable.text("; ".join(problems))[:400]
        )
    return made[0][1]


def _document(source: Source, instance: nn.Module | None, own: Code | None, call: Call) -> dict[str, Any]:
    """How the model is built, if this call builds such a model."""
    from relume.generators import isolated
    from relume.models import build
    from relume.models.whole import model_document

    kind, names = type(instance), {}
    if own is not None:
        module = _module_of(own.tree, call.file)
        found = own.find(module, [call.name])
        kind, names = getattr(found, call.name), {found.__name__: module}
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise RecipeError("it is no class of modules")
    with isolated(0):
        made = build(kind, *call.args, **call.kwargs)
    theirs = {name: tuple(value.shape) for name, value in made.state_dict().items()}
    if theirs != {name: tuple(value.shape) for name, value in source.state.items()}:
        raise RecipeError("it has other weights")
    for name, value in made.named_parameters():
        value.requires_grad_(source.trainable.get(name, value.requires_grad))
    document = json.loads(json.dumps(model_document(made)))
    return {**document, "recipe": renamed(document["recipe"], names)}


def _module_of(tree: Tree, file: str) -> str:
    """What the code calls a file of it: ``__main__`` for its script."""
    if file == tree.script:
        return "__main__"
    parts = PurePosixPath(file.removesuffix("/__init__.py").removesuffix(".py")).parts
    names = (".".join(parts[begin:]) for begin in range(len(parts)))
    return next((name for name in names if tree.located(name) == file), ".".join(parts))
