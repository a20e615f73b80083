"""The lane: the duplicate on which the users of ``g.comm`` communicate.

Owns the lane, what is derived from it, and what has to be kept alive when it is
given up. How peers are woken is the business of `channel` and `ulfm`, its two
subclasses.

The lane is made together with its owner, at a guard's first entry on the user's
communicator, where all ranks are, not at the first use of ``g.comm``: a rank may
fail before it gets there, and ``Dup`` cannot be interrupted. The price is one
``Dup`` per user's communicator, once. A lane that a failed region left dirty is
replaced in ``drain()``, which all ranks call together. The dirty one is leaked,
never freed: MPICH delivers stale messages of a freed communicator on the next one
that gets its context id.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from allraise.gates import Gates, new_ident
from allraise.plain import LaneState

if TYPE_CHECKING:
    from mpi4py import MPI

#: interruption(rank that failed first or UNKNOWN, what was given up)
Interruption = Callable[[int, str], BaseException]

UNKNOWN = -1  # in place of a rank

# What an abandoned operation may still write to or send from: requests, which
# hold their buffers. Kept for the life of the process.
LEAKED: list[object] = []

N_LOOKS = 2  # at started requests, to drop those that are done, for each new one


class Lane(LaneState):
    """A private communicator's lane; see the module. Collective over `private`.

    Args:
        private: this library's own communicator.
        lane: a duplicate for the users of ``g.comm``; None if there are none.
        ident: names it, the same on all ranks.
        interruption: makes the exception that a woken rank raises.
    """

    revokes = False  # peers are woken by a revoke, not by messages

    def __init__(
        self,
        private: MPI.Intracomm,
        lane: MPI.Intracomm | None,
        ident: int,
        interruption: Interruption,
    ) -> None:
        self.private = private
        self.rank = private.Get_rank()
        self.size = private.Get_size()
        self.interruption = interruption
        self.failed = False  # this rank has failed, or knows of one that has
        self.failed_rank = UNKNOWN
        self.failed_depth = 0  # the outermost at which one is known to have failed
        self.depth_here: Callable[[], int] = int  # how many regions are open here
        self.last_failed_rank = UNKNOWN  # of the region before
        self.is_abandoned = False  # see `abandon`
        self.generation = 0  # communicators and requests of an older one raise
        self.used = False  # something else than gates took place on the lane
        self.cached: Any = None  # g.comm, made at its first use
        self.started: OrderedDict[int, MPI.Request] = OrderedDict()
        self.lane = lane
        self.renew(ident)

    def make_lane(self, ident: int) -> None:
        """Make another lane. Collective over `private`."""
        self.lane = self.private.Dup()
        self.renew(ident)

    def replace_lane(self, ident: int) -> None:
        """Leak the lane and make another. Collective over `private`.

        Where MPI has no communicator left (MPICH has 2046), `lane` is None from
        then on: the failure that is being reported must not be hidden by this.
        """
        from mpi4py import MPI

        self.leak()
        try:
            self.make_lane(ident)
        except MPI.Exception:
            self.lane = None
            self.renew(ident)

    def renew(self, ident: int) -> None:
        """Begin a new generation. Not collective."""
        self.generation += 1
        self.last_failed_rank, self.failed_rank = self.failed_rank, UNKNOWN
        self.failed = False
        self.gates = [Gates(ident)]  # the lane's, then those of what is derived
        self.derived: list[MPI.Intracomm] = []
        self.cached = None
        self.used = False

    @property
    def has_failed_around(self) -> bool:
        """Whether a failure ends what this rank does within its regions here.

        For regions on other communicators within: a peer that is ahead may have
        failed in a region further in, which this rank still comes to.
        """
        return self.failed and self.failed_depth <= self.depth_here()

    def keep(self, request: MPI.Request) -> None:
        """Keep a started request, and so its buffers, until it is done.

        Not collective. The user's frame that holds it may be unwound, and a
        receive under way would write into freed memory.
        """
        self.used = True
        self.started[id(request)] = request
        # Those that mpi4py's own Waitall has done are found here: looking at two for
        # each that comes, in turn, keeps no more done ones than there are others.
        for _ in range(N_LOOKS):
            i, oldest = self.started.popitem(last=False)
            if oldest:
                self.started[i] = oldest

    def forget(self, comm: MPI.Intracomm) -> None:
        """Forget a derived communicator that is about to be freed. Not collective."""
        self.derived = [c for c in self.derived if c != comm]

    def stale(self, operation: str) -> BaseException:
        """Return what a communicator of an older generation raises."""
        if self.is_abandoned:  # its region has ended for another one's failure
            return self.interruption(self.last_failed_rank, operation)
        # Not the present region's failure, if there is one: so no rank to blame.
        woken = self.interruption(UNKNOWN, operation)
        rank = self.last_failed_rank
        why = "" if rank == UNKNOWN else f", for rank {rank} failed in it"
        text = f"{operation} was not done: this g.comm is of a region that is over{why}"
        woken.args = (f"{text}; take g.comm of the guard that is open now",)
        return woken

    def leak(self) -> None:
        """Keep what abandoned operations may still touch. Not collective."""
        LEAKED.extend(request for request in self.started.values() if request)
        self.started.clear()

    def abandon(self) -> None:
        """Give this up together with its private communicator. Not collective.

        For what is nested in a guard on another communicator that has failed.
        """
        self.leak()
        LEAKED.append(self)
        self.is_abandoned = True
        self.last_failed_rank = self.failed_rank
        self.generation += 1

    def close(self) -> None:
        """Free the lane and what is derived from it. Collective over `private`."""
        self.generation += 1
        for comm in (*self.derived, self.lane):
            if comm:  # neither None nor null
                comm.Free()


def agreed_ident(comm: MPI.Intracomm) -> int:
    """Return a new number, the same on all ranks. Collective over `comm`."""
    from mpi4py import MPI

    agreed = array("q", [0])
    comm.Allreduce(array("q", [new_ident()]), agreed, MPI.MAX)
    return agreed[0]
