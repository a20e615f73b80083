"""Random SPMD programs over several communicators, and what must hold of each.

`generate` makes a program from a seed. It is run by simulated ranks under a model
of the protocol (`unit/nested_model`), and by real ones (`launch/programs`).
Communicators come in families, each named after how it divides the world::

    world    0 1 2 3 4 5       parity   0 2 4 | 1 3 5
    dup      0 1 2 3 4 5       halves   0 1 2 | 3 4 5
    left     0 1 2 3 4         right      1 2 3 4 5

A guard on a family is one on each of its communicators: a rank enters that which
it is a member of. A guard stands only where all members come by.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

MAX_DEPTH = 5
TALKS = ("barrier", "allreduce", "ring", "object")


def groups_of(size: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Return the groups of each family, as ranks of the world."""
    world = tuple(range(size))
    return {
        "world": (world,),
        "dup": (world,),
        "parity": (world[::2][::-1], world[1::2]),  # one of them backwards
        "halves": (world[: size // 2], world[size // 2 :]),
        "left": (world[:-1],),
        "right": (world[1:],),
    }


@dataclass(frozen=True)
class Work:
    """Fails on some ranks."""

    number: int
    fails: frozenset[int]


@dataclass(frozen=True)
class Pause:
    """Lets the other ranks go first."""

    number: int
    ranks: frozenset[int]


@dataclass(frozen=True)
class Talk:
    """Communicates on ``g.comm`` of the innermost open guard on a family.

    That may be one around the guard that is innermost of all.
    """

    number: int
    family: str
    kind: str


@dataclass(frozen=True)
class Guard:
    number: int
    family: str
    body: tuple[Any, ...]

    @property
    def step(self) -> str:
        return f"{self.family} {self.number}"


@dataclass(frozen=True)
class Try:
    """Swallows what a guard raises, on some ranks."""

    number: int
    guard: Guard
    swallows: frozenset[int]


@dataclass(frozen=True)
class Program:
    seed: int
    size: int
    touched: tuple[str, ...]  # families that were used before
    body: tuple[Any, ...]
    contained: bool = True  # each guard's group lies within those around it


class Generator:
    """Makes a program in which a rank fails somewhere, most often."""

    def __init__(
        self, rng: random.Random, size: int, *, contained: bool, near: bool
    ) -> None:
        self.rng = rng
        self.size = size
        self.contained = contained
        self.near = near
        self.groups = groups_of(size)
        self.number = 0

    def next(self) -> int:
        self.number += 1
        return self.number

    def some(self, chance: float) -> frozenset[int]:
        """No rank most often; else one, some or all."""
        kind = self.rng.random()
        if kind >= chance:
            return frozenset()
        if kind < 0.7 * chance:
            return frozenset((self.rng.randrange(self.size),))
        if kind < 0.9 * chance:
            return frozenset(r for r in range(self.size) if self.rng.random() < 0.4)
        return frozenset(range(self.size))

    def fitting(self, active: frozenset[int], around: tuple[str, ...]) -> list[str]:
        """Return the families on which a guard may stand here."""
        return [
            family
            for family, groups in self.groups.items()
            if all(self._fits(set(group), active, around) for group in groups)
        ]

    def _fits(
        self, group: set[int], active: frozenset[int], around: tuple[str, ...]
    ) -> bool:
        if not group & active:
            return True
        if not group <= active:
            return False  # some members do not come by
        outer = [set(g) for family in around for g in self.groups[family]]
        return not self.contained or all(group <= g for g in outer if group & g)

    def program(self, seed: int) -> Program:
        families = list(self.groups)
        chance = self.rng.choice((0.0, 0.5, 1.0))
        touched = tuple(f for f in families if self.rng.random() < chance)
        everyone = frozenset(range(self.size))
        body = tuple(
            self.guard(everyone, (), families) for _ in range(self.rng.randint(1, 3))
        )
        return Program(seed, self.size, touched, body, self.contained)

    def guard(
        self, active: frozenset[int], around: tuple[str, ...], families: list[str]
    ) -> Guard:
        # The world is around most often, as in most programs. Where groups overlap
        # it must be: nobody else knows of a rank that fails before it comes to one.
        first = not around and (not self.contained or self.rng.random() < 0.6)
        family = "world" if first else self.rng.choice(families)
        members = frozenset(r for g in self.groups[family] for r in g)
        body = self.body(active & members, (*around, family))
        return Guard(self.next(), family, body)

    def body(self, active: frozenset[int], around: tuple[str, ...]) -> tuple[Any, ...]:
        n_statements = self.rng.randint(1, 3)
        return tuple(self.statement(active, around) for _ in range(n_statements))

    def statement(self, active: frozenset[int], around: tuple[str, ...]) -> Any:
        kind = self.rng.random()
        families = self.fitting(active, around)
        if kind < 0.2 or len(around) >= MAX_DEPTH:
            return Work(self.next(), self.some(0.4))
        if kind < 0.65 and families:
            return self.guard(active, around, families)
        if kind < 0.8 and families:
            inner = self.guard(active, around, families)
            return Try(self.next(), inner, self.some(0.9))
        if kind < 0.9:
            return Pause(self.next(), self.some(0.8))
        family = around[-1]
        if not self.near and self.rng.random() < 0.5:
            family = self.talked(active, around)
        return Talk(self.next(), family, self.rng.choice(TALKS))

    def talked(self, active: frozenset[int], around: tuple[str, ...]) -> str:
        """Return a family around all of whose members come by."""
        fits = [
            family
            for family in around
            if all(
                set(group) <= active or not set(group) & active
                for group in self.groups[family]
            )
        ]
        return self.rng.choice(fits or [around[-1]])


def generate(seed: int, size: int, *, contained: bool, near: bool = False) -> Program:
    """Make a program.

    Args:
        seed: Of all that is random in it.
        size: Ranks.
        contained: Whether a guard's group lies within that of each one around it; if
            not, the world is around all.
        near: Whether ranks communicate on the ``g.comm`` of the innermost guard alone.
    """
    rng = random.Random(f"{seed} {size} {contained}")
    return Generator(rng, size, contained=contained, near=near).program(seed)
