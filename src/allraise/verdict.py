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
                    where it stands (see `impasse`)
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from allraise.errors import PeerFailure
from allraise.exceptions import CheckpointException
from allraise.parts import is_a, is_of_mpi, put_on_top
from allraise.private import VECTOR_LENGTH
from allraise.signals import signals_held_back

if TYPE_CHECKING:
    from array import array

    from mpi4py import MPI

    from allraise.private import Opened, Private, Region

_PACK_INTO: Final = struct.Struct(f"={VECTOR_LENGTH}q").pack_into

# In the place: 32 bits of root, one bit of `everywhere`, then minus the depth.
EVERYWHERE: Final = 1 << 32
_PLACE_BITS: Final = 33

# A severity that no rank sends: the reduction has not happened yet.
PENDING: Final = -1

# Of one who tells where it stands: it does not ask, for all have asked before.
_TOLD: Final = 2

# Of the number that tells steps apart: 61 bits of hash, to which depth and count
# are added without reaching the sign bit.
_HASH_BITS: Final = 61
_COUNT_BITS: Final = 40


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
        return -(self.place >> _PLACE_BITS)

    @property
    def root(self) -> int:
        """The root that those ranks named."""
        return self.place & (EVERYWHERE - 1)

    @property
    def everywhere(self) -> bool:
        """Whether one of those ranks wants the whole report everywhere."""
        return bool(self.place & EVERYWHERE)


# A dict and not `functools.lru_cache`, whose call takes longer than all of this.
_HASHES: Final[dict[Region, int]] = {}
MAX_HASHES: Final = 1024  # a program may name a step anew each time


def _hash_of(region: Region) -> int:
    # Not hash(): Python salts it in each process. Imported here because OpenSSL
    # takes three milliseconds to load.
    import hashlib

    text = region if isinstance(region, str) else "\0".join(region)
    data = text.encode(errors="surrogatepass")
    digest = hashlib.blake2b(data, digest_size=8).digest()
    number = int.from_bytes(digest, "big") >> (64 - _HASH_BITS)
    if len(_HASHES) >= MAX_HASHES:
        _HASHES.clear()
    _HASHES[region] = number
    return number


def severity_of(exc: BaseException | None) -> int:
    """Return 0 for no failure, 1 for an `Exception`, 2 for any other."""
    if exc is None:
        return 0
    return 1 if issubclass(type(exc), Exception) else 2


def token_of(private: Private, exc: BaseException) -> int:
    """Return the token of a failure agreed here before, or 0."""
    agreed = exc.agreed if is_a(exc, CheckpointException) else None
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
        digest = _HASHES[region] + (depth << _COUNT_BITS) + number
    except KeyError:
        digest = _hash_of(region) + (depth << _COUNT_BITS) + number
    mine, total = private.mine, private.total
    # The others are zero: `_clean` has seen to that.
    mine[2] = place - (depth << _PLACE_BITS)
    mine[3] = digest
    mine[4] = -digest
    private.reduce()
    return bool(total == mine)  # all sent the same, and that was no failure


def reduce_vector(
    opened: Opened,
    exc: BaseException | None,
    place: int,
    refused: bool,  # noqa: FBT001 a keyword takes 20 ns of every guard
) -> tuple[BaseException | None, BaseException | None]:
    """Do the one Allreduce, whatever a signal handler raises around it.

    Collective over comm. What it tells is in ``private.total``.

    Args:
        opened: The region that ends, the innermost here.
        exc: What ended it, or None.
        place: From `place_of`.
        refused: Whether this rank's arguments were refused.

    Returns:
        The failure of this rank, and an exception that a signal handler raised
        when the reduction was done.
    """
    private, region, depth, number, *_ = opened
    depth = private.over or depth
    digest = _hash_of(region) + (depth << _COUNT_BITS) + number
    place -= depth << _PLACE_BITS
    if private.listens():
        return _reduce_watching(private, exc, place, digest, refused=refused)
    mine, total = private.mine, private.total
    severity = token = 0
    interruption = None
    while True:
        if exc is not None:
            severity, token = severity_of(exc), token_of(private, exc)
        total[0] = PENDING
        try:
            _PACK_INTO(
                mine,
                0,
                severity,
                -refused,
                place,
                digest,
                -digest,
                token,
                -token,
                _asks_or_told(private),
            )
            private.reduce()
        except BaseException as error:
            if is_of_mpi(error):
                raise
            if total[0] == PENDING:
                # A signal handler raised before the reduction, which the others
                # wait for: it is this rank's failure, on top of what it had.
                exc, refused = put_on_top(error, exc), False
                continue
            interruption = error
        _clean(mine)
        return exc, interruption


class _Reduction:
    """One reduction, started once, however often it is waited for."""

    def __init__(self, private: Private) -> None:
        self.private = private
        self.request: MPI.Request | None = None

    def start(self) -> MPI.Request:
        private = self.private
        if self.request is None:
            self.request = private.comm.Iallreduce(
                private.mine, private.total, private.op
            )
        return self.request

    def wait(self) -> BaseException | None:
        """Wait for it, or raise; return what a signal handler raised meanwhile."""
        private = self.private
        entered = private.gates.entered if private.gates else 0
        try:
            if private.has_twin or private.watched:
                late: BaseException | None = private.beacon.pass_gate(
                    self.start, private.gates, "an agreement"
                )
                return late
            private.beacon.relay_until(self.start())
        except BaseException as error:
            if private.gates and not (self.request and is_a(error, PeerFailure)):
                private.gates.entered = entered  # it was not, or will be again
            raise
        return None


def _reduce_watching(
    private: Private,
    exc: BaseException | None,
    place: int,
    digest: int,
    *,
    refused: bool,
) -> tuple[BaseException | None, BaseException | None]:
    """Do the reduction as one that other messages can end, or be passed on in.

    Collective over comm.

    Raises:
        PeerFailure: A region on a communicator around this one has failed.
    """
    reduction = _Reduction(private)
    late, is_done = None, False
    while not is_done:
        try:
            # It takes several calls, and must be started once.
            with signals_held_back():
                if reduction.request is None:
                    severity = token = 0
                    if exc is not None:
                        severity, token = severity_of(exc), token_of(private, exc)
                    numbers = (severity, -refused, place, digest, -digest)
                    asks = _asks_or_told(private)
                    _PACK_INTO(private.mine, 0, *numbers, token, -token, asks)
                found = reduction.wait()
                is_done = (
                    True  # `total` does not tell: MPICH writes there from the start
                )
                late = late or found
        except BaseException as error:
            # Of a signal handler, or there is no agreement to be had.
            if not is_done and (is_a(error, PeerFailure) or is_of_mpi(error)):
                raise
            if reduction.request is not None:  # the others count on this rank
                late = late or error
            else:
                exc, refused = put_on_top(error, exc), False
    _clean(private.mine)
    return exc, late


def _clean(mine: array[int]) -> None:
    """Leave the vector as `succeeds` wants to find it. Not collective.

    Not where a reduction was given up: MPI may read it still, and another one takes
    its place.
    """
    _PACK_INTO(mine, 0, *bytes(VECTOR_LENGTH))


def _asks_or_told(private: Private) -> int:
    if private.beacon is not None and private.beacon.standing.told is not None:
        return _TOLD
    return int(private.asking)


def is_told(private: Private) -> bool:
    """Tell whether a rank has told where it stands. Not collective.

    Right after the reduction. To be received also where all went well.
    """
    return bool(private.total[7] == _TOLD)


def is_success(private: Private) -> bool:
    """Tell whether the last reduction found no failure, and one step.

    Not collective. Ranks that ask to be woken may do so at different steps.
    """
    total = private.total
    return total[0] == 0 and (total[3] == -total[4] or bool(private.asking))


def is_asked(private: Private) -> bool:
    """Note whether a rank asks to be woken, and tell if that was all there was.

    Not collective, right after the reduction.
    """
    total = private.total
    if total[7] != 1:
        return False
    private.wakes = True
    private.note_plain()
    return not total[0]


def read_verdict(private: Private) -> Verdict:
    """Return what the last reduction told."""
    return Verdict(*private.total)
