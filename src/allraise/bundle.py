"""The failures of many ranks, each distinct thing held once.

Owns how records merge and what a merged set costs on the wire. Knows nothing of
MPI, nor of how a set is shown::

    rank 0 ─ Bundle ┐
                    ├ merge ─ Bundle ┐
    rank 1 ─ Bundle ┘                ├ merge ─ ... ─ Bundle of all ranks
    rank 2 ─ Bundle ──────────────── ┘

So its size grows with the number of distinct failures (see `distinct`), not with the
number of ranks, and caps bound the former.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from allraise.damage import WireError, check_ranges, check_types
from allraise.distinct import Distinct
from allraise.ranks import RankSet
from allraise.record import INTERRUPTED, NOWHERE, Origin, Record, minimal
from allraise.wire import (
    Packed,
    dump_compressed,
    kind_of,
    load_compressed,
    pack,
    unpack,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from allraise.distinct import Variant

# Host, process and time are different on every rank, so they cannot merge.
MAX_ORIGINS: Final = 1024

# An age of nothing would read as a time: ages travel as negative times.
TINIEST_AGE_S: Final = 1e-9

# What a shape and its variant, and a rank and its origin are made of.
_OF_VARIANT: Final = (bytes, bytes, tuple)
_OF_ORIGIN: Final = (int, str, int, float)


def record_of(
    shape: bytes, variant: Variant, origin: tuple[str, int, float] = NOWHERE
) -> Record:
    """Read a distinct failure; what cannot be read comes as a record that says so."""
    text, bodies = variant
    try:
        return unpack(Packed(shape, text, bodies, origin))
    except WireError as error:
        reason = f"its record is unreadable: {error}"
        return minimal("<unknown>", reason, reason=reason)


class Bundle(Distinct):
    """The failures of a set of ranks, each distinct thing held once.

    Not collective. Immutable for all but this module.
    """

    def __init__(self) -> None:
        super().__init__()
        self._origins: dict[int, tuple[str, int, float]] = {}

    @classmethod
    def later(cls, make: Callable[[], Bundle]) -> Bundle:
        """Return what is made when it is first looked at.

        Args:
            make: Makes it; called again if it has raised.
        """
        bundle = cls.__new__(cls)
        bundle._make = make
        return bundle

    _make: Callable[[], Bundle]

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there: nothing is, of one that is made later.
        if "_make" not in self.__dict__:
            raise AttributeError(name=name, obj=self)
        self.__dict__ |= self._make().__dict__
        del self.__dict__["_make"]
        return getattr(self, name)

    @classmethod
    def of(cls, rank: int, record: Record) -> Bundle:
        """Make the bundle of one rank's failure."""
        bundle = cls()
        bundle.add(RankSet((rank,)), record)
        return bundle

    @classmethod
    def of_packed(cls, rank: int, packed: Packed) -> Bundle:
        """Make the bundle of one rank's failure, as it travels."""
        bundle = cls()
        shape, variant, bodies, bundle._origins[rank] = packed
        bundle._shapes[shape] = {(variant, bodies): [(rank, rank)]}
        bundle._n_variants = 1
        bundle._n_bytes = len(shape) + len(variant) + sum(map(len, bodies))
        return bundle

    def add(self, ranks: RankSet, record: Record) -> None:
        """Take in a failure; its origin is that of the first of its ranks."""
        packed = pack(record)
        self._add(packed.shape, (packed.variant, packed.bodies), ranks.ranges)
        if record.origin != NOWHERE:
            self.set_origin(ranks.first, record.origin)

    def set_origin(self, rank: int, origin: Origin) -> None:
        """Take in where and when a rank failed."""
        self._origins[rank] = (origin.host, origin.pid, origin.time)

    def set_age(self, rank: int, seconds: float) -> None:
        """Say when a rank failed by how long ago that was, for `settle_ages`."""
        host, pid, _ = self._origins.get(rank, NOWHERE)
        self._origins[rank] = (host, pid, -max(seconds, TINIEST_AGE_S))

    def settle_ages(self, now: float) -> None:
        """Turn ages into times on the clock of this process.

        Args:
            now: Seconds since the epoch, at the moment that ages count from.
        """
        for rank, (host, pid, time) in self._origins.items():
            if time < 0:
                self._origins[rank] = (host, pid, now + time)

    @classmethod
    def merge(cls, bundles: Iterable[Bundle], *, capped: bool = False) -> Bundle:
        """Join bundles; where two know of one rank, the first is right.

        Args:
            bundles: In order of who is to be believed and to be kept.
            capped: Whether to hold to the caps.
        """
        merged = cls()
        taken: set[int] = set()
        for bundle in bundles:
            known = bundle.rank_numbers()
            overlap = taken & known
            taken |= known
            fits = not capped or merged._has_room_for(bundle)
            for shape, variant, ranges in bundle.held():
                left: Sequence[tuple[int, int]] = ranges
                if overlap:
                    ranks = RankSet.from_ranges(ranges)
                    left = RankSet(r for r in ranks if r not in overlap).ranges
                if left and fits:
                    merged._add(shape, variant, left)
                elif left:
                    merged._add_or_spill(shape, variant, left)
            for rank, origin in bundle.origins.items():
                if capped and len(merged._origins) >= MAX_ORIGINS:
                    break
                merged._origins.setdefault(rank, origin)
        return merged

    @property
    def origins(self) -> Mapping[int, tuple[str, int, float]]:
        """Host, process and time by rank, as far as they were kept."""
        return self._origins

    def only(self, rank: int, renamed: int | None = None) -> Bundle:
        """Return the failure of one rank alone, perhaps under another number."""
        found = Bundle()
        name = rank if renamed is None else renamed
        for shape, variant, ranks in self.entries():
            if rank in ranks:
                found._add(shape, variant, ((name, name),))
                if rank in self._origins:
                    found._origins[name] = self._origins[rank]
        return found

    def among(self, ranks: Iterable[int]) -> Bundle:
        """Return the failures of some ranks."""
        found = Bundle()
        wanted = set(ranks)
        for shape, variant, known in self.entries() if wanted else ():
            left = RankSet(rank for rank in known if rank in wanted)
            if left:
                found._add(shape, variant, left.ranges)
        found._origins = {r: o for r, o in self._origins.items() if r in wanted}
        return found

    def renamed(self, names: Sequence[int]) -> Bundle:
        """Return the same under other ranks: rank ``i`` becomes ``names[i]``."""
        found = Bundle()
        for shape, variant, ranks in self.entries():
            new = RankSet(names[rank] for rank in ranks)
            found._add(shape, variant, new.ranges)
        found._origins = {names[r]: origin for r, origin in self._origins.items()}
        return found

    def reshaped(self, whole: Mapping[bytes, bytes]) -> Bundle:
        """Return the same with some shapes in place of others."""
        found = Bundle()
        found._shapes = {whole.get(s, s): known for s, known in self._shapes.items()}
        if len(found._shapes) < len(self._shapes):  # two that are one by now
            found._shapes = {}
            for shape, variant, ranges in self.held():
                found._add(whole.get(shape, shape), variant, ranges)
        found._origins = self._origins
        found._n_variants = sum(map(len, found._shapes.values()))
        found._n_bytes = self._n_bytes + sum(map(len, whole.values()))  # or less
        return found

    def records(self) -> Iterator[tuple[RankSet, Record]]:
        """Go through the distinct failures, each with its ranks.

        The origin of a record here is that of its first rank. Bytes that cannot
        be read come as a record that says so.
        """
        for shape, variant, ranks in self.entries():
            origin = self._origins.get(ranks.first, NOWHERE)
            yield ranks, record_of(shape, variant, origin)

    def failures(self) -> Bundle:
        """Return those that failed, without those that a failure interrupted.

        All of them where nobody tells of a failure: something ended them.
        """
        failed = self.without_interrupted()
        return failed or self

    def without_interrupted(self) -> Bundle:
        """Return those that failed and were not interrupted; perhaps none."""
        kept = [shape for shape in self._shapes if kind_of(shape) != INTERRUPTED]
        if len(kept) == len(self._shapes):
            return self
        failed = Bundle()
        for shape in kept:
            for variant, ranges in self._shapes[shape].items():
                failed._add(shape, variant, ranges)
        failed._origins = {r: o for r, o in self._origins.items() if r in failed.ranks}
        return failed

    def encode(self) -> bytes:
        """Turn the bundle into bytes, compressed where that pays."""
        # Loops, for a comprehension is a call, and every rank that fails does this.
        told = []
        for shape, variants in self._shapes.items():
            texts: list[tuple[bytes, tuple[bytes, ...], object]] = []
            told.append((shape, texts))
            for (text, bodies), ranges in variants.items():
                texts.append((text, bodies, RankSet.from_ranges(ranges).ranges))
        return dump_compressed((told, self._origins))

    @classmethod
    def decode(cls, data: bytes) -> Bundle:
        """Read a bundle.

        Raises:
            WireError: The bytes are damaged.
        """
        try:
            shapes, origins = load_compressed(data)
            bundle = cls()
            # A call less for each of its ranks: the root does this while all wait.
            for shape, variants in shapes:
                for text, bodies, ranges in variants:
                    if (type(shape), type(text), type(bodies)) != _OF_VARIANT:
                        check_types((bytes, shape), (bytes, text), (tuple, bodies))
                    if bodies:
                        check_types(*zip(repeat(bytes), bodies))
                    check_ranges(ranges)
                    bundle._add(shape, (text, bodies), ranges)
            for rank, (host, pid, time) in origins.items():
                if (type(rank), type(host), type(pid), type(time)) != _OF_ORIGIN:
                    check_types((int, rank), (str, host), (int, pid), (float, time))
                bundle._origins[rank] = (host, pid, time)
        except WireError:
            raise
        except Exception as error:
            msg = f"a damaged bundle: {type(error).__name__}: {error}"
            raise WireError(msg) from error
        return bundle
