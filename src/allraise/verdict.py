"""The one Allreduce: the vector, and what it tells.

Owns the eight int64 that each rank contributes and that, reduced with MAX, tell
every rank whether anyone failed, the outermost depth at which anyone stands,
and whether all stand at the same step. Knows exceptions only by their severity
and token.

A value and its negative tell whether all are equal::

    severity        0, 1 an `Exception`, 2 another `BaseException`
    - refused       -1 if this rank's arguments were refused
    place           outermost depth first, then `everywhere` and `root`
    hash, - hash    of (step, depth, count), the same in every process
    token, - token  of the agreed failure that this rank's exception is
    asking          1 if this rank wants to be woken from now on, 2 if it has told
                    where it stands (see `impasse`), 3 if agreements are to be gates
                    from now on (see `nesting`)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.exceptions import agreed_of
from allraise.plain import COUNT_BITS, HASHES, PLACE_BITS
from allraise.private import VECTOR_LENGTH

if TYPE_CHECKING:
    from allraise.private import Opened, Private, Region

# Writes all the numbers of the vector.
write_vector: Final = struct.Struct(f"={VECTOR_LENGTH}q").pack_into

# In the place: 32 bits of root, one bit of `everywhere`, then minus the depth.
EVERYWHERE: Final = 1 << (PLACE_BITS - 1)

# Of one who tells where it stands: that is told again until all have heard of it, where
# another asks for more. And it has asked before to be woken.
TO_WAKE: Final = 1
TOLD: Final = 2
FOR_TWIN: Final = 3

# Of the number that tells steps apart: 61 bits of hash, to which depth and count
# are added without reaching the sign bit.
_HASH_BITS: Final = 61


def place_of(root: int, *, everywhere: bool) -> int:
    """Pack what a region was opened with into the place, without the depth."""
    return root + EVERYWHERE if everywhere else root


class Verdict(NamedTuple):
    """What the reduction told, the same on every rank."""

    severity: int
    minus_refused: int
    place: int
    hash_high: int
    minus_hash_low: int
    token_high: int
    minus_token_low: int
    asking: int

    @property
    def depth(self) -> int:
        """The outermost depth at which any rank stands."""
        return -(self.place >> PLACE_BITS)

    @property
    def root(self) -> int:
        """The root that those ranks named."""
        return self.place & (EVERYWHERE - 1)

    @property
    def everywhere(self) -> bool:
        """Whether one of those ranks wants the whole report everywhere."""
        return bool(self.place & EVERYWHERE)


MAX_HASHES: Final = 1024  # a program may name a step anew each time


def _hash_of(region: Region) -> int:
    # Not hash(): Python salts it in each process. Imported here because OpenSSL
    # takes three milliseconds to load.
    import hashlib

    text = region if isinstance(region, str) else "\0".join(region)
    data = text.encode(errors="surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> (64 - _HASH_BITS)
    if len(HASHES) >= MAX_HASHES:
        HASHES.clear()
    HASHES[region] = number
    return number


def step_number(opened: Opened, depth: int) -> int:
    """Return the number that tells a region from others."""
    region = opened[1]
    digest = HASHES[region] if region in HASHES else _hash_of(region)
    return digest + (depth << COUNT_BITS) + opened[3]


def severity_of(exc: BaseException | None) -> int:
    """Return 0 for no failure, 1 for an `Exception`, 2 for any other."""
    if exc is None:
        return 0
    return 1 if issubclass(type(exc), Exception) else 2


def token_of(private: Private, exc: BaseException) -> int:
    """Return the token of a failure agreed here before, or 0."""
    agreed = agreed_of(exc)
    return agreed.token if agreed and agreed.owner is private else 0


def succeeds(
    private: Private, region: Region, depth: int, number: int, place: int
) -> bool:
    """Do the one Allreduce of a rank that has not failed.

    Collective over comm. What every guard costs that goes well: no more is done
    here than that takes. The caller sets the total to `PENDING` first, for it may be
    that this function does not even begin.

    Returns:
        Whether no rank has failed, and all stand at one step. If not,
        ``private.total`` tells more.

    Raises:
        BaseException: What a signal's handler raised: before the reduction where
            the total is `PENDING` still.
    """
    # Sums are enough: the hash of the step is spread, the rest fits beside.
    try:
        digest = HASHES[region] + (depth << COUNT_BITS) + number
    except KeyError:
        digest = _hash_of(region) + (depth << COUNT_BITS) + number
    mine, total = private.mine, private.total
    # The others are zero, see `CLEAN`.
    mine[2] = place - (depth << PLACE_BITS)
    mine[3] = digest
    mine[4] = -digest
    private.reduce()
    return bool(total == mine)  # all sent the same, and that was no failure


# The vector as `succeeds` wants to find it. Not where a reduction was given up: MPI may
# read it still, and another one takes its place.
CLEAN: Final = bytes(VECTOR_LENGTH)


def is_told(private: Private) -> bool:
    """Tell whether a rank has told where it stands. Not collective.

    Right after the reduction. To be received also where all went well.
    """
    return bool(private.total[7] == TOLD)


def is_for_twin(private: Private) -> bool:
    """Tell whether a rank asks for gates. Not collective, right after the reduction.

    That hides whether a rank has told where it stands.
    """
    return bool(private.total[7] == FOR_TWIN)


def is_success(private: Private) -> bool:
    """Tell whether the last reduction found no failure, and one step.

    Not collective. Ranks that ask to be woken may do so at different steps.
    """
    total = private.total
    return total[0] == 0 and (total[3] == -total[4] or bool(private.asking))


def is_asked(private: Private) -> bool:
    """Note what a rank asks for, and tell if that was all there was.

    Not collective, right after the reduction.
    """
    total = private.total
    if total[7] not in {TO_WAKE, FOR_TWIN}:
        return False
    private.wakes = True
    private.has_twin = private.has_twin or total[7] == FOR_TWIN
    private.note_plain()
    return not total[0]


def read_verdict(private: Private) -> Verdict:
    """Return what the last reduction told."""
    return Verdict(*private.total)
