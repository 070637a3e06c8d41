# Every mutant of a file: its syntax tree with one change, small and likely to be somebody's mistake.
#
# Left alone is what says nothing at run time or nothing to a market: annotations, docstrings, decorators and types of
# the compiler, the texts of errors, and imports. A statement that gives a name its first value is not deleted either,
# for the mutant that follows fails by itself, and would flatter the tests.

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Where the new value goes: an attribute of a node or a place of a list.
Change = tuple[Any, "str | int", Any]

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
# Which way to round, and which of two amounts counts, is what money is about.
NAMES = {"max": "min", "min": "max", "down": "up", "up": "down", "forth": "back", "back": "forth"}

# First columns and cells, which stand at 0: with and without them, and without twice, is the same place.
NOTHING = ("IMP", "IMPS", "IMP_ID", "ATTRIBUTES", "REASON", "REPLY", "START", "TOLD", "WINNER")

_SILENT = ("annotation", "returns", "decorator_list", "msg", "exc", "cause")
_OF_THE_COMPILER = ("njit", "types", "NewType")


@dataclass(frozen=True)
class Mutant:
    """One change, told by content: `before`, `after`, and which of those it is (`nth`); `line` is for readers."""

    file: str
    number: int
    line: int
    function: str
    before: str
    after: str
    nth: int

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        return self.file, self.function, self.before, self.after, self.nth


def mutants(file: str, source: str) -> list[Mutant]:
    """Give every mutant of a file, numbered."""
    seen: Counter[tuple[str, str, str]] = Counter()
    made = []
    for number, (line, function, statement, change) in enumerate(_changes(ast.parse(source))):
        before = _head(statement)
        was = _put(change)
        # A deleted statement is no longer in the tree that it was found in.
        after = "pass" if isinstance(change[2], ast.Pass) else _head(statement)
        _put((change[0], change[1], was))
        seen[function, before, after] += 1
        made.append(Mutant(file, number, line, function, before, after, seen[function, before, after]))
    return made


def mutated(source: str, number: int) -> ast.Module:
    """Make the tree of one mutant."""
    tree = ast.parse(source)
    for place, (*_, change) in enumerate(_changes(tree)):
        if place == number:
            _put(change)
            return ast.fix_missing_locations(tree)
    raise AssertionError(number)


def _put(change: Change) -> Any:
    holder, key, value = change
    if isinstance(holder, list):
        assert isinstance(key, int)
        was, holder[key] = holder[key], value
    else:
        assert isinstance(key, str)
        was = getattr(holder, key)
        setattr(holder, key, value)
    return was


def _head(statement: ast.stmt) -> str:
    """Write a statement on one line, without the block it may open."""
    return next(line for line in ast.unparse(statement).splitlines() if not line.startswith("@"))


def _changes(tree: ast.Module) -> Iterator[tuple[int, str, ast.stmt, Change]]:
    yield from _of_block(tree.body, "", set())


def _of_block(body: list[ast.stmt], function: str, known: set[str]) -> Iterator[tuple[int, str, ast.stmt, Change]]:
    for place, statement in enumerate(body):
        if isinstance(statement, ast.Import | ast.ImportFrom) or _is_silent(statement):
            continue
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            inside = f"{function}.{statement.name}".lstrip(".")
            if isinstance(statement, ast.FunctionDef):
                for default in (*statement.args.defaults, *filter(None, statement.args.kw_defaults)):
                    for change in _of_expression(default):
                        yield statement.lineno, inside, statement, change
            yield from _of_block(statement.body, inside, set())
            continue
        if _may_go(statement, known):
            yield statement.lineno, function, statement, (body, place, ast.Pass())
        known |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and _stores(node)}
        for change in _of_node(statement):
            yield statement.lineno, function, statement, change
        for field, value in ast.iter_fields(statement):
            if field in _SILENT:
                continue
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ast.expr):
                    for change in _of_expression(one):
                        yield one.lineno, function, statement, change
        for field in ("body", "orelse", "finalbody"):
            yield from _of_block(getattr(statement, field, []), function, known)
        for handler in getattr(statement, "handlers", []):
            yield from _of_block(handler.body, function, known)


def _stores(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _is_silent(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    return isinstance(statement, ast.Assign) and any(
        isinstance(node, ast.Name) and node.id in _OF_THE_COMPILER for node in ast.walk(statement.value)
    )


def _may_go(statement: ast.stmt, known: set[str]) -> bool:
    if isinstance(statement, ast.Assign):
        names = [node for target in statement.targets for node in ast.walk(target) if isinstance(node, ast.Name)]
        return all(name.id in known or not _stores(name) for name in names)
    return isinstance(statement, ast.AugAssign | ast.Expr | ast.Raise | ast.Assert | ast.Continue | ast.Break)


def _of_expression(root: ast.expr) -> Iterator[Change]:
    for node in ast.walk(root):
        yield from _of_node(node)


def _of_node(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=ops):
            for place, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield ops, place, other()
        case ast.BinOp(op=ast.Add(), right=ast.Name(id=name)) if name in NOTHING:
            pass
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield node, "op", ARITHMETIC[type(op)]()
        case ast.BoolOp(op=op):
            yield node, "op", ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, "operand", ast.UnaryOp(ast.Not(), operand)
        case ast.UnaryOp(op=ast.USub()):
            yield node, "op", ast.UAdd()
        case ast.Constant(value=bool(value)):
            yield node, "value", not value
        case ast.Constant(value=int(value) | float(value)):
            yield node, "value", value + 1 if value + 1 != value else value * 2  # 1e21 + 1 is the same double
        case ast.Constant(value=str(value)):
            yield node, "value", value + "?"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, "value", ast.Constant(None)
        case ast.Name(id=name) if name in NAMES and not _stores(node):
            yield node, "id", NAMES[name]
        case ast.Attribute(attr=name) if name in NAMES:
            yield node, "attr", NAMES[name]
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(
        node.test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant
    ):
        yield node, "test", ast.UnaryOp(ast.Not(), node.test)
