"""The expressions over sizes that a graph holds as text, which torch hands to sympy, and sympy to ``eval``."""

from __future__ import annotations

import ast
import math
import re

_SYMBOL = re.compile(r"[a-z]{1,3}[0-9]{1,5}\Z")
_FUNCTIONS = {
    "FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv",
    "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator",
    "TruncToFloat", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity",
    "Max", "Min", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Add", "Mul", "Pow", "Integer", "Rational",
    "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "Symbol",
}  # fmt: skip
_ASSUMPTIONS = {"positive", "nonnegative", "negative", "nonpositive", "nonzero", "zero", "integer", "real", "finite"}
_POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift"}
_MAX_LENGTH = 2000
_MAX_EXPONENT = 64
_MAX_INTEGER = 1 << 63
_MAX_DEGREE = 64
_MAX_TERMS = 256


def is_symbol(text: str) -> bool:
    """Whether it names a size, as ``s0`` and ``u12`` do.

    Example:
        >>> is_symbol("s77"), is_symbol("os")
        (True, False)
    """
    return _SYMBOL.match(text) is not None


def problem_of(text: str) -> str:
    """What an expression has that arithmetic over sizes has not; empty where there is nothing.

    Example:
        >>> problem_of("2*s0 + FloorDiv(s1, 4)"), problem_of("Add(Symbol('s0', integer=True), Integer(1))")
        ('', '')
        >>> problem_of("__import__('os').system('true')")
        "the call of __import__('os').system"
    """
    if len(text) > _MAX_LENGTH or not text.isascii() or not text.isprintable():
        return f"more than {_MAX_LENGTH} characters, or ones that no expression has"
    try:
        tree = ast.parse(text, mode="eval")  # parses, and runs nothing
        return _problem_within(tree) or _problem_of_size(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "no expression"


def _problem_within(node: ast.AST) -> str:
    if _is_symbol_call(node):  # Symbol('s0', positive=True, integer=True): the one place where a text may stand
        return ""
    return _problem(node) or next(filter(None, map(_problem_within, ast.iter_child_nodes(node))), "")


def _is_symbol_call(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="Symbol"), args=[ast.Constant(value=str(name))], keywords=keywords):
            return is_symbol(name) and all(
                one.arg in _ASSUMPTIONS and isinstance(one.value, ast.Constant) and isinstance(one.value.value, bool)
                for one in keywords
            )
    return False


def _problem(node: ast.AST) -> str:
    match node:
        case ast.Expression() | ast.Load() | ast.operator() | ast.unaryop() | ast.cmpop():
            return ""
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _problem_of_power([left, right])
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod()):
            return ""
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return ""
        case ast.Compare(ops=[ast.Eq() | ast.NotEq() | ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE()]):
            return ""
        case ast.Constant(value=value):
            return _problem_of_number(value)
        case ast.Name(id=name):
            return "" if is_symbol(name) or name in _FUNCTIONS or name in ("True", "False") else f"the name {name}"
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS - {"Symbol"}:
            return _problem_of_power(node.args) if name in _POWERS else ""
        case ast.Call(func=function):
            return f"the call of {ast.unparse(function):.60}"
    return f"{type(node).__name__} in it"


def _problem_of_number(value: object) -> str:
    if isinstance(value, bool) or (type(value) is int and value < _MAX_INTEGER):
        return ""
    if type(value) is float and math.isfinite(value):
        return ""
    return f"the value {value!r:.40}"


def _problem_of_power(operands: list[ast.expr]) -> str:
    """A tower of powers would keep the processor busy for ever."""
    if len(operands) != 2 or any(_is_power(node) for operand in operands for node in ast.walk(operand)):
        return "a power of a power"
    numbers = [node.value for node in ast.walk(operands[1]) if isinstance(node, ast.Constant)]
    names = [
        node for node in ast.walk(operands[1]) if isinstance(node, ast.Name) and node.id not in ("Integer", "Rational")
    ]
    is_small = not names and all(isinstance(one, (int, float)) and one <= _MAX_EXPONENT for one in numbers)
    is_plain = not any(isinstance(node, ast.BinOp) for node in ast.walk(operands[1]))
    return "" if is_small and is_plain else f"the exponent {ast.unparse(operands[1]):.40}"


def _problem_of_size(tree: ast.expr) -> str:
    """Multiplied out, a short text can be a polynomial without end, and sympy multiplies out."""
    degree, terms = _multiplied_out(tree)
    if degree > _MAX_DEGREE or terms > _MAX_TERMS:
        return "a product of too many sizes"
    return ""


def _multiplied_out(node: ast.expr) -> tuple[int, int]:
    """The degree, and at most how many terms there are; both stop growing when they are too large."""
    match node:
        case ast.Constant():
            return 0, 1
        case ast.Name():
            return 1, 1
        case ast.BinOp(op=ast.Pow(), left=base, right=exponent):
            return _raised(base, exponent)
        case ast.Call(func=ast.Name(id=name), args=[base, exponent]) if name in _POWERS:
            return _raised(base, exponent)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mod(), left=left, right=right):
            sizes = [_multiplied_out(left), _multiplied_out(right)]
            return max(sizes)[0], sum(terms for _, terms in sizes)
        case ast.BinOp(left=left, right=right):
            return _product([_multiplied_out(left), _multiplied_out(right)])
        case ast.UnaryOp(operand=operand):
            return _multiplied_out(operand)
        case ast.Call(func=ast.Name(id="Add"), args=arguments):
            sizes = [_multiplied_out(one) for one in arguments]
            return max(sizes, default=(0, 0))[0], sum(terms for _, terms in sizes)
        case ast.Call(func=ast.Name(id="Symbol")):
            return 1, 1
        case ast.Call(args=arguments):
            return _product([_multiplied_out(one) for one in arguments])
        case ast.Compare(left=left, comparators=[right]):
            return _product([_multiplied_out(left), _multiplied_out(right)])
    return 0, 1


def _raised(base: ast.expr, exponent: ast.expr) -> tuple[int, int]:
    numbers = [node.value for node in ast.walk(exponent) if isinstance(node, ast.Constant)]
    power = max((math.ceil(abs(one)) for one in numbers if isinstance(one, (int, float))), default=1)
    return _product([_multiplied_out(base)] * min(power, _MAX_EXPONENT + 1))


def _product(sizes: list[tuple[int, int]]) -> tuple[int, int]:
    terms = 1
    for _, more in sizes:
        terms = min(terms * more, _MAX_TERMS + 1)
    return min(sum(degree for degree, _ in sizes), _MAX_DEGREE + 1), terms


def _is_power(node: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _POWERS
    return called or isinstance(node, ast.Pow)
