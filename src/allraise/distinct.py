"""Distinct failures, each held once, with the ranks that have it.

Owns the mapping that a `bundle` is made of, and what it may grow to::

    shape (types and frames) -> variant (messages, objects) -> ranks

The key is the shape, with the message outside, because a message usually names
the rank or a path: keyed on both, nothing would ever merge. The idea is LLNL
STAT's: merge stacks in a tree, edges labelled with sets of ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allraise.ranks import RankSet
from allraise.record import minimal
from allraise.wire import Packed, is_outline, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What one merged bundle holds at most. Beyond, a rank keeps its place and its
# exception's type, and loses its own message and stack.
MAX_SHAPES: Final = 64
MAX_VARIANTS: Final = 1024
MAX_BUNDLE_BYTES: Final = 2 * 1024 * 1024

_LEFT_OUT: Final = "[message and stack left out: too many different failures]"

Variant = tuple[bytes, tuple[bytes, ...]]


class Distinct:
    """The distinct failures of a set of ranks.

    Not collective. Changed by bundles alone.
    """

    def __init__(self) -> None:
        # Ranges of ranks as they came; put in order when they are read.
        self._shapes: dict[bytes, dict[Variant, list[tuple[int, int]]]] = {}
        # What the caps count while others are merged into this one.
        self._n_variants = 0
        self._n_bytes = 0

    def _add(
        self, shape: bytes, variant: Variant, ranges: Iterable[tuple[int, int]]
    ) -> None:
        variants = self._shapes.get(shape)
        if variants is None:
            variants = self._shapes[shape] = {}
            self._n_bytes += len(shape)
        if variant in variants:
            variants[variant].extend(ranges)
        else:
            variants[variant] = list(ranges)
            self._n_variants += 1
            self._n_bytes += len(variant[0]) + sum(map(len, variant[1]))

    def _has_room_for(self, other: Distinct) -> bool:
        """Tell whether all of another one fits, whatever both have in common."""
        return (
            self._n_variants + other._n_variants <= MAX_VARIANTS
            and self._n_bytes + other._n_bytes < MAX_BUNDLE_BYTES
            and len(self._shapes) + len(other._shapes) <= MAX_SHAPES
        )

    def _add_or_spill(
        self, shape: bytes, variant: Variant, ranges: Iterable[tuple[int, int]]
    ) -> None:
        """Take in a failure as far as the caps allow."""
        variants = self._shapes.get(shape)
        room = (variants is not None and variant in variants) or (
            self._n_variants < MAX_VARIANTS
            and self._n_bytes < MAX_BUNDLE_BYTES
            and (variants is not None or len(self._shapes) < MAX_SHAPES)
        )
        if not room:
            record = unpack(Packed(shape, variant[0]))
            name = record.links[0].type_name
            if len(self._shapes) >= 2 * MAX_SHAPES:  # even types are without end
                name = "(other types)"
            packed = pack(minimal(name, _LEFT_OUT, record.kind))
            shape, variant = packed.shape, (packed.variant, ())
        self._add(shape, variant, ranges)

    def entries(self) -> Iterator[tuple[bytes, Variant, RankSet]]:
        """Go through the distinct failures as they travel."""
        for shape, variant, ranges in self.held():
            yield shape, variant, RankSet.from_ranges(ranges)

    def held(self) -> Iterator[tuple[bytes, Variant, list[tuple[int, int]]]]:
        """Go through them with the ranges of their ranks in no order."""
        for shape, variants in self._shapes.items():
            for variant, ranges in variants.items():
                yield shape, variant, ranges

    def __bool__(self) -> bool:
        """Whether anyone failed."""
        return bool(self._shapes)

    @property
    def ranks(self) -> RankSet:
        """The ranks that failed."""
        return RankSet.from_ranges(
            pair
            for variants in self._shapes.values()
            for ranges in variants.values()
            for pair in ranges
        )

    def rank_numbers(self) -> set[int]:
        """Return the same, as plain numbers in no order: quicker."""
        return {
            rank
            for variants in self._shapes.values()
            for ranges in variants.values()
            for first, last in ranges
            for rank in range(first, last + 1)
        }

    def outlines(self) -> dict[bytes, int]:
        """Return the shapes without frames, each with the first rank that has it."""
        return {
            shape: min(first for ranges in variants.values() for first, _ in ranges)
            for shape, variants in self._shapes.items()
            if is_outline(shape)
        }
