"""What failed ranks say, put together: of each rank what ended it, and nothing lost.

Owns which of several words about one rank is told, and in which order. Knows nothing
of live exceptions, nor of how words travel.

A rank that fails tells of itself what it has raised. Where it passes on a failure that
was agreed, it tells of other ranks as well; where it had handled one, this is in the
chain of what it raised. So, of one rank:

- first its part in the agreed failure that it passes on, and what it raised from that;
- or else what it raised;
- then its part in what others pass on, unless it has spoken of the same agreement;
- and its part in what others had handled, only where there is none of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.bundle import Bundle
from allraise.record import HANDLED, NOWHERE, minimal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What a word is: of this rank's own exception, or of an agreed failure that it passes
# on. Of one agreement the first is believed: the root knows all of it, each rank its
# own part, and of the others a line.
OWN, WHOLE, PART, PARTIAL = 0, 1, 2, 3

# Of an agreed failure that a rank had handled when it raised another exception.
HANDLED_WHOLE, HANDLED_PARTIAL = 4, 5

_PASSED_ON: Final = frozenset({WHOLE, PART, PARTIAL})


class Finding(NamedTuple):
    """One word of a failed rank.

    ``agreement`` names the agreement that it is about, alike on every rank; empty
    where it is about none.
    """

    what: int
    bundle: Bundle
    agreement: str = ""

    def encode(self) -> tuple[int, bytes, str]:
        """Turn it into what travels."""
        return self.what, self.bundle.encode(), self.agreement


class Told(NamedTuple):
    """What failed ranks have said.

    ``first`` tells of a rank what comes first, ``beside`` more of some of these, and
    ``handled`` of other ranks.
    """

    first: Bundle
    beside: Bundle
    handled: Bundle

    def complete(self, merged: Bundle) -> Bundle:
        """Add to a bundle, made from ``first``, what is not in that. Return it."""
        for bundle in (self.beside, self.handled):
            for ranks, record in bundle.records():
                # Where and when is kept of a rank's first record.
                merged.add(ranks, record._replace(origin=NOWHERE))
        return merged


def failures_in(findings: Iterable[Finding]) -> Bundle:
    """Return what one rank tells of failures, without what it had handled."""
    told = sorted(findings, key=lambda finding: finding.what)
    return Bundle.merge(one.bundle for one in told if one.what <= PARTIAL)


def decoded(data: bytes, rank: int) -> Bundle:
    """Read what a rank sent; what cannot be read is told, not raised."""
    try:
        return Bundle.decode(data)
    except Exception as error:
        return Bundle.of(rank, minimal("<unknown>", f"an unreadable record: {error}"))


def put_together(found: Mapping[int, Iterable[Sequence[Any]]], *, capped: bool) -> Told:
    """Put the words of all failed ranks together.

    Not collective.

    Args:
        found: By rank, its findings as `Finding.encode` made them.
        capped: Whether to hold to the caps of a bundle.
    """
    words = [(item[0], rank, item) for rank, items in found.items() for item in items]
    own: dict[int, Bundle] = {}
    passed: dict[str, list[Bundle]] = {}
    handled: list[Bundle] = []
    speakers: dict[str, set[int]] = {}
    passers: dict[str, set[int]] = {}
    for what, rank, (_, data, *about) in sorted(words, key=lambda word: word[:2]):
        bundle, agreement = decoded(data, rank), about[0] if about else ""
        if what == OWN:
            own[rank] = bundle
            continue
        speakers.setdefault(agreement, set()).add(rank)
        if what in _PASSED_ON:
            passed.setdefault(agreement, []).append(bundle)
            passers.setdefault(agreement, set()).add(rank)
        else:
            handled.append(bundle)
    parts, claims = [], []
    for agreement, bundles in passed.items():
        known = Bundle.merge(bundles, capped=capped)
        parts.append(known.among(passers[agreement]))
        claims.append(known.among(set(known.ranks) - speakers[agreement]))
    first = Bundle.merge([*parts, *own.values(), *claims], capped=capped)
    part = Bundle.merge(parts, capped=capped)
    by_itself = set(part.ranks) | own.keys()
    beside = [own[rank] for rank in part.ranks if rank in own]
    # That a rank was interrupted elsewhere is no news of one that has failed.
    beside += [claim.among(by_itself).without_interrupted() for claim in claims]
    return Told(
        first,
        Bundle.merge(beside, capped=capped),
        _as_handled(Bundle.merge(handled, capped=capped), set(first.ranks)),
    )


def _as_handled(known: Bundle, told: set[int]) -> Bundle:
    """Return what was handled, without the ranks of which more is told."""
    bundle = Bundle()
    failed = known.without_interrupted()
    for ranks, record in failed.among(set(failed.ranks) - told).records():
        bundle.add(ranks, record._replace(kind=HANDLED))
    return bundle
