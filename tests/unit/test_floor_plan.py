"""Imports go down only, and none of them starts MPI."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import allraise

SOURCE = Path(allraise.__file__).parent

# From the ground up: a module imports from the levels below its own. The
# number is the floor that the design gives it.
LEVELS: tuple[tuple[int, frozenset[str]], ...] = tuple(
    (floor, frozenset(names.split()))
    for floor, names in (
        (0, "damage paths chains errors"),
        (0, "record ranks settings signals values census watchdog tally"),
        (0, "native completions"),
        (0, "operations pending alone plain storing kinds quiet asking"),
        (0, "gates standing polling"),
        (0, "frames wire lane neighbours buffers deriving"),
        (0, "direct blocks"),
        (0, "distinct"),
        (0, "bundle"),
        (0, "summary"),
        (0, "parts own calls"),
        (0, "moving"),
        (0, "slots"),
        (0, "objects scalars messaging probing waits"),
        (0, "trees broadcast several"),
        (0, "bodies passage methods"),
        (0, "interruptible"),
        (0, "channel"),
        (0, "ulfm"),
        (1, "capture rebuild render grouping"),
        (1, "stacks revive copies outline"),
        (2, "wrapped viewer telling"),
        (2, "tree page publishing ending findings leaves"),
        (2, "report"),
        (2, "exceptions showing"),
        (3, "private carrier gathering mismatch stall collector"),
        (3, "standstill"),
        (3, "hang alarm"),
        (3, "registry verdict contribution leading"),
        (3, "nesting witness reducing"),
        (3, "remains exits uncaught"),
        (3, "spool"),
        (3, "meeting"),
        (3, "spooling survivors beside"),
        (3, "inside places"),
        (3, "impasse"),
        (3, "rendezvous"),
        (3, "creation peers"),
        (3, "waking leaving"),
        (3, "failing"),
        (3, "closing"),
        (3, "agreement overdue"),
        (3, "arguments deadline row"),
        (4, "guard caught steps"),
        (4, "dcp launcher doctor"),
        (5, "__init__ __main__"),
    )
)
LEVEL = {name: level for level, (_, names) in enumerate(LEVELS) for name in names}
FILES = sorted(SOURCE.glob("*.py"))


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of(tree, *, deep):
    """Go through the imports, those for type checkers alone left out."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif deep or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports_of(node, deep=deep)


def own_modules(node):
    """Return which modules of allraise an import brings."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif node.level:
        pytest.fail(f"a relative import at line {node.lineno}")
    else:
        module = node.module or ""
        names = [
            f"{module}.{a.name}" if module == "allraise" else module for a in node.names
        ]
    found = {name.split(".")[1] for name in names if name.startswith("allraise.")}
    return {name if name in LEVEL else "__init__" for name in found}


def test_every_module_has_its_floor():
    assert {path.stem for path in FILES} == set(LEVEL)


def test_floors_ascend():
    floors = [floor for floor, _ in LEVELS]
    assert floors == sorted(floors)
    assert sum(len(names) for _, names in LEVELS) == len(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_go_down_only(path):
    tree = ast.parse(path.read_text())
    upward = {
        name
        for node in imports_of(tree, deep=False)
        for name in own_modules(node)
        if LEVEL[name] >= LEVEL[path.stem]
    }
    assert upward == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_module_imports_mpi_when_it_is_imported(path):
    """`mpi4py.MPI` calls MPI_Init when it is imported."""
    tree = ast.parse(path.read_text())
    for node in imports_of(tree, deep=False):
        names = [alias.name for alias in node.names]
        module = getattr(node, "module", None)
        assert not any(name.startswith("mpi4py") for name in names)
        assert not (module or "").startswith("mpi4py")


def test_only_frames_rebuilds_tracebacks_with_tblib():
    users = {
        path.stem
        for path in FILES
        for node in imports_of(ast.parse(path.read_text()), deep=True)
        for name in [getattr(node, "module", ""), *(a.name for a in node.names)]
        if (name or "").startswith("tblib")
    }
    assert users == {"frames"}


@pytest.mark.parametrize(
    ("source", "n_found"),
    [
        ("from allraise.record import Link", 1),
        ("import allraise.record", 1),
        ("from allraise import record, ranks", 2),
        (
            "try:\n    from allraise.record import Link\nexcept ImportError:\n    pass",
            1,
        ),
        ("class A:\n    from allraise.record import Link", 1),
        ("def f():\n    from allraise.record import Link", 0),
        ("if TYPE_CHECKING:\n    from allraise.record import Link", 0),
        ("import os", 0),
    ],
)
def test_the_plan_sees_every_form_of_import(source, n_found):
    tree = ast.parse(source)
    found = [n for node in imports_of(tree, deep=False) for n in own_modules(node)]
    assert len(found) == n_found
