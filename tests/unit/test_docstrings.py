"""Each public docstring says who has to call: one line from a closed list."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import allraise

SOURCE = Path(allraise.__file__).parent
# What begins a sentence about it; where and when may follow.
LINE = re.compile(r"(^|\. )(Collective over \S|Not collective\b)", re.MULTILINE)
ANY_CLAIM = re.compile(r"^((?:\w+ )?collective\b.*)", re.MULTILINE | re.IGNORECASE)
FILES = sorted(SOURCE.glob("*.py"))


def doc_of(found):
    return inspect.cleandoc(found.__doc__ or "")


@pytest.mark.parametrize(
    "name", [n for n in allraise.__all__ if n != "WrappedException"]
)
def test_a_public_name_says_whether_it_is_collective(name):
    """A class says it itself, or in each of its public methods."""
    found = getattr(allraise, name)
    if LINE.search(doc_of(found)):
        return
    assert isinstance(found, type), name
    methods = {
        key: doc_of(value)
        for key, value in vars(found).items()
        if inspect.isroutine(value) and not key.startswith("_")
    }
    assert doc_of(found)
    if not issubclass(found, BaseException):
        assert methods
    silent = {key for key, text in methods.items() if not LINE.search(text)}
    assert silent - {"locate", "own_exception", "get_rank", "get_world_size"} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_said_of_being_collective_begins_as_agreed(path):
    """Neither "Logically collective" nor "Must be called by all"."""
    tree = ast.parse(path.read_text())
    documented = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented):
            for claim in ANY_CLAIM.findall(ast.get_docstring(node) or ""):
                begins = claim.startswith(("Collective over ", "Not collective"))
                inside = claim[0].islower()  # the middle of a sentence
                assert begins or inside, f"{path.name}, {node.name}: {claim}"
