"""The Allreduce of a rank that has failed, or that listens meanwhile.

Owns how the vector of `verdict` is reduced where that takes more than the one call of
`verdict.succeeds`::

    a rank fails                             Allreduce, whatever handlers raise around it
    a region around may end this one         Iallreduce as a numbered gate, see `passage`
    messages are to be passed on             Iallreduce, and what comes meanwhile
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allraise.chains import is_a, is_of_mpi, put_on_top
from allraise.errors import PeerFailure
from allraise.plain import PENDING, PLACE_BITS
from allraise.signals import signals_held_back
from allraise.verdict import (
    CLEAN,
    TOLD,
    severity_of,
    step_number,
    token_of,
    write_vector,
)

if TYPE_CHECKING:
    from mpi4py import MPI

    from allraise.private import Opened, Private


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
    private = opened[0]
    depth = private.over or opened[2]
    digest = step_number(opened, depth)
    place -= depth << PLACE_BITS
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
            write_vector(
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
        write_vector(mine, 0, *CLEAN)
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
                    write_vector(private.mine, 0, *numbers, token, -token, asks)
                found = reduction.wait()
                # Noted, for `total` does not tell: MPICH writes there from the start.
                is_done = True
                if found is not None:
                    late = found
        except BaseException as error:
            # Of a signal handler, or there is no agreement to be had.
            if not is_done and (is_a(error, PeerFailure) or is_of_mpi(error)):
                raise
            if reduction.request is not None:  # the others count on this rank
                late = error
            else:
                exc, refused = put_on_top(error, exc), False
    write_vector(private.mine, 0, *CLEAN)
    return exc, late


def _asks_or_told(private: Private) -> int:
    is_told = private.beacon is not None and private.beacon.standing.told is not None
    return max(private.asking, TOLD if is_told else 0)
