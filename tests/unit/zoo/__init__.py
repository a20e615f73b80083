"""A zoo of hostile exceptions: each a function that raises, and what is expected.

What is expected of every one of them: nothing raises, neither on the rank that
fails nor on the one that reads, and type name, message and frames arrive. The
outcome says what becomes of the exception *object*.
"""

from __future__ import annotations

from unit.zoo.case import INTACT, TAMED, TEXT, ZOO, Case

from unit.zoo import (  # isort: skip  each fills the zoo
    builtins,
    chains,
    classes,
    constructors,
    hooks,
    libraries,
    payloads,
    sources,
    texts,
)

__all__ = [
    "INTACT",
    "TAMED",
    "TEXT",
    "ZOO",
    "Case",
    "builtins",
    "chains",
    "classes",
    "constructors",
    "hooks",
    "libraries",
    "payloads",
    "sources",
    "texts",
]
