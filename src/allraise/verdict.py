"""The one Allreduce: the vector, and what it tells.

Owns the seven int64 that each rank contributes and that, reduced with MAX, tell
every rank whether anyone failed, the outermost depth at which anyone stands,
and whether all stand at the same step. Knows exceptions only by their severity
and token.

A value and its negative tell whether all are equal::

    severity        0, 1 an `Exception`, 2 another `BaseException`
    - refused       -1 if this rank's arguments were refused
    place           outermost depth first, then `everywhere` and `root`
    hash, - hash    of (step, depth, count), the same in every process
    token, - token  of the agreed failure that this rank's exception is
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.exceptions import CheckpointException
from allraise.private import VECTOR_LENGTH

if TYPE_CHECKING:
    from allraise.private import Private

_VECTOR: Final = struct.Struct(f"={VECTOR_LENGTH}q")

# In the place: 32 bits of root, one bit of `everywhere`, then the depth.
EVERYWHERE: Final = 1 << 32
_DEPTH: Final = 1 << 33

# A severity that no rank sends: the reduction has not happened yet.
_PENDING: Final = -1

# The hash leaves the sign bit and one more alone, so that its negative fits.
_HASH_MASK: Final = (1 << 62) - 1


class Terms(NamedTuple):
    """What a region was opened with."""

    step: str
    root: int = 0
    everywhere: bool = False


class Verdict(NamedTuple):
    """What the reduction told, the same on every rank."""

    severity: int
    minus_refused: int
    place: int
    hash_high: int
    minus_hash_low: int
    token_high: int
    minus_token_low: int

    @property
    def success(self) -> bool:
        """Whether nobody failed and all stand at one step."""
        return not self.severity and self.hash_high == -self.minus_hash_low

    @property
    def depth(self) -> int:
        """The outermost depth at which any rank stands."""
        return -(self.place // _DEPTH)

    @property
    def root(self) -> int:
        """The root that those ranks named."""
        return self.place & (EVERYWHERE - 1)

    @property
    def everywhere(self) -> bool:
        """Whether one of those ranks wants the whole report everywhere."""
        return bool(self.place & EVERYWHERE)


@lru_cache(maxsize=1024)
def _hash_of(step: str) -> int:
    # Not hash(): Python salts it in each process.
    text = step.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def severity_of(exc: BaseException | None) -> int:
    """Return 0 for no failure, 1 for an `Exception`, 2 for any other."""
    if exc is None:
        return 0
    return 1 if issubclass(type(exc), Exception) else 2


def token_of(private: Private, exc: BaseException) -> int:
    """Return the token of a failure agreed here before, or 0."""
    agreed = exc.agreed if isinstance(exc, CheckpointException) else None
    return agreed.token if agreed and agreed.owner is private else 0


def reduce_verdict(
    private: Private, exc: BaseException | None, terms: Terms, *, refused: bool
) -> tuple[BaseException | None, Verdict, BaseException | None]:
    """Do the one Allreduce, whatever a signal handler raises around it.

    Returns:
        The failure of this rank, the verdict, and an exception that a signal
        handler raised when the reduction was done.
    """
    depth = len(private.steps)
    place = terms.root - depth * _DEPTH
    if terms.everywhere:
        place += EVERYWHERE
    # Linear mixing is enough: steps differ by their hash already.
    digest = _hash_of(terms.step) + depth * 0x9E3779B97F4A7C15
    digest = (digest + private.counts[-2] * 0xC2B2AE3D27D4EB4F) & _HASH_MASK
    interruption = None
    mine, total = private.mine, private.total
    while True:
        token = token_of(private, exc) if exc is not None else 0
        total[0] = _PENDING
        try:
            _VECTOR.pack_into(
                mine,
                0,
                severity_of(exc),
                -refused,
                place,
                digest,
                -digest,
                token,
                -token,
            )
            private.comm.Allreduce(mine, total, private.op)
        except BaseException as error:
            if type(error).__module__ == "mpi4py.MPI":
                raise
            if total[0] == _PENDING:
                # A signal handler raised before the reduction, which the others
                # wait for: it is this rank's failure.
                exc = error
                continue
            interruption = error
        return exc, Verdict._make(_VECTOR.unpack(total)), interruption
