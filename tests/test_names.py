"""Tests have the same names in the same order in every process, as workers side by side want it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ORDERED = frozenset({"sorted", "min", "max", "sum", "len", "any", "all"})
"""What is in a set or in a folder, in whichever order, comes out of these the same."""
UNORDERED = frozenset({"set", "frozenset", "glob", "rglob", "iterdir", "listdir", "scandir", "walk"})
UNLIKE = frozenset(
    {"time", "time_ns", "monotonic", "perf_counter", "now", "today", "uuid4", "random", "getpid", "mkdtemp"}
)
"""What is another thing in each process."""


def called(node: ast.AST) -> str:
    """Return the last name of what is called; "" for what is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def unlike(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the calls below a value that give another one in each process."""
    yield from (one for one in ast.walk(node) if called(one) in UNLIKE)


def unstable(node: ast.AST, named: Mapping[str, ast.AST]) -> Iterator[ast.AST]:
    """Yield what makes values, tried one after the other, differ from process to process; not what a value holds."""
    match node:
        case ast.Name(id=name) if name in named:
            yield from unstable(named[name], named)
        case ast.Set() | ast.SetComp():
            yield node
        case ast.List(elts=values) | ast.Tuple(elts=values):
            for value in values:
                yield from unstable(value.value, named) if isinstance(value, ast.Starred) else unlike(value)
        case ast.ListComp(elt=value, generators=loops) | ast.GeneratorExp(elt=value, generators=loops):
            yield from unlike(value)
            for loop in loops:
                yield from unstable(loop.iter, named)
        case ast.Call() if called(node) in UNORDERED:
            yield node
        case ast.Call(args=values) if called(node) not in ORDERED:
            for value in values:
                yield from unstable(value.value if isinstance(value, ast.Starred) else value, named)


def parametrized(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield what makes the values of a parametrize differ; names of the module are looked up."""
    named = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if called(node) == "parametrize" and isinstance(node, ast.Call):
            for value in (*node.args[1:], *(one.value for one in node.keywords if one.arg in ("argvalues", "ids"))):
                yield from unstable(value, named)


def test_no_name_depends_on_time_or_the_order_of_sets_and_folders() -> None:
    found = [
        f"{path.relative_to(HERE)}:{getattr(one, 'lineno', 0)}"
        for path in sorted(HERE.rglob("*.py"))
        for one in parametrized(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "sort it, or give ids that stay"


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.mark.parametrize('a', {1, 2})",
        "@pytest.mark.parametrize('a', list(set(names)))",
        "@pytest.mark.parametrize('a', [*folder.glob('*')])",
        "@pytest.mark.parametrize('a', [gzip.compress(b'', mtime=time.time())])",
        "NAMES = {'a', 'b'}\n@pytest.mark.parametrize('a', NAMES)",
    ],
    ids=["set", "call", "folder", "time", "name"],
)
def test_what_differs_is_found(text: str) -> None:
    tree = ast.parse(f"{text}\ndef test(a): pass")
    assert list(parametrized(tree))


@pytest.mark.parametrize("packed", [b"\x1f\x8b", bytearray(b"x")])
def test_bytes_are_in_no_name(packed: bytes, request: pytest.FixtureRequest) -> None:
    assert request.node.name in ("test_bytes_are_in_no_name[packed0]", "test_bytes_are_in_no_name[packed1]")
