# The mutants of `make mutants`: what is changed, what is left alone, and how a known survivor is told from the others.

from __future__ import annotations

import ast
from importlib import import_module

from tests.mutants.mutations import NOTHING, mutants, mutated
from tests.mutants.run import SURVIVORS, TESTS, accepted

SOURCE = '''
"""Docstring."""
LIMIT: int = 3


@njit("int64(int64)", cache=True)
def charged(bid: int, floor: int = 0) -> int:
    """Docstring."""
    if not bid < floor and floor:
        raise ValueError("below")
    price = max(bid, -floor)
    price = price * 2
    return price
'''

CHANGED = [
    ("LIMIT: int = 3", "LIMIT: int = 4"),
    ("def charged(bid: int, floor: int=0) -> int:", "def charged(bid: int, floor: int=1) -> int:"),
    ("if not bid < floor and floor:", "if not bid < floor or floor:"),
    ("if not bid < floor and floor:", "if not not bid < floor and floor:"),
    ("if not bid < floor and floor:", "if not bid <= floor and floor:"),
    ("if not bid < floor and floor:", "if not bid >= floor and floor:"),
    ("raise ValueError('below')", "pass"),
    ("price = max(bid, -floor)", "price = min(bid, -floor)"),
    ("price = max(bid, -floor)", "price = max(bid, +floor)"),
    ("price = price * 2", "pass"),
    ("price = price * 2", "price = price // 2"),
    ("price = price * 2", "price = price * 3"),
    ("return price", "return None"),
]


def test_each_change_is_one_and_told_by_what_it_changes() -> None:
    assert CHANGED == [(mutant.before, mutant.after) for mutant in mutants("a.py", SOURCE)]


def test_a_tree_has_the_change_that_its_mutant_tells_and_no_other() -> None:
    plain = ast.unparse(ast.parse(SOURCE)).splitlines()
    for mutant in mutants("a.py", SOURCE):
        lines = ast.unparse(mutated(SOURCE, mutant.number)).splitlines()
        changed = [(one.strip(), other.strip()) for one, other in zip(plain, lines, strict=True) if one != other]
        assert [(mutant.before, mutant.after)] == changed


def test_what_is_alike_is_told_apart_by_its_turn_and_not_by_its_line() -> None:
    twice = "def f(a):\n    g(a)\n    g(a)\n"
    assert [("pass", 1), ("pass", 2)] == [(mutant.after, mutant.nth) for mutant in mutants("a.py", twice)]
    moved = [mutant.identity for mutant in mutants("a.py", f"\n\n{SOURCE}")]
    assert moved == [mutant.identity for mutant in mutants("a.py", SOURCE)]


def test_what_is_added_without_effect_is_nothing_indeed() -> None:
    kernels = [import_module(f"auction.core.kernels.{name}") for name in ("clear", "sieve")]
    for name in NOTHING:
        assert {0} == {getattr(kernel, name) for kernel in kernels if hasattr(kernel, name)}
        assert ["pass"] == [mutant.after for mutant in mutants("a.py", f"a[b + {name}]\n")]


def test_known_survivors_are_of_files_on_trial_and_have_a_reason_each() -> None:
    entries = accepted(SURVIVORS)
    assert {entry["file"] for entry in entries} <= set(TESTS)
    assert [] == [entry for entry in entries if not entry["reason"].endswith(".")]
