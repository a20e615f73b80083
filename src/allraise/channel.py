"""The error channel: how a failing rank wakes those that wait for it.

Owns one tag of the private communicator handed to it. Knows the numbers of gates
(`gates`), the lane (`lane`) and those who wait there (`passage`), nothing of
exceptions: what a woken rank raises is made by a function it is given.
::

    failing rank                    a rank blocked on the lane
    ------------                    --------------------------
    announce()                      Waitany([operation, listen])
      Isend(private, TAG) --------->  listen completes: read, pass on, listen
                                      gate that will open?  wait on
                                      otherwise  announce(), raise interruption
    agreement <===== Allreduce on private, by the caller =====> agreement
    drain()   <== every rank receives exactly what was sent to it ==> drain()
              <==   a new lane where the old one may be dirty     ==>

**Who is told.** Up to `DIRECT_LIMIT` ranks, a rank tells all others itself. Above,
it tells its neighbours rank +- 2^k, and each passes on what is news to it, as in
the reliable broadcast of ULFM's revoke (Bosilca et al.): P failures cost of the
order of P log P messages. A rank passes on only while it looks at the channel: so
where `Channel.needs_relay`, ranks wait for their agreement with
`Channel.relay_until`, or a rank behind them is never woken.

A channel is used by one thread at a time.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING

from allraise.gates import Announced, new_ident
from allraise.lane import N_LOOKS, UNKNOWN
from allraise.passage import Passage
from allraise.quiet import forget, stop_at_exit
from allraise.standing import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mpi4py import MPI

    from allraise.gates import Gates
    from allraise.lane import Interruption
    from allraise.standing import Stand
    from allraise.waits import Waits

TAG = 1201  # of announcements, on the private communicator
DIRECT_LIMIT = 64  # ranks; 63 small sends cost a failing rank some 30 us

# A message: the rank that failed first, the depth of the region in which one has
# failed, how many pairs follow, then pairs of (communicator, gates entered). Long
# lists go in several messages.
HEAD = 3
MAX_PAIRS = 31
WORDS = HEAD + 2 * MAX_PAIRS

# In place of the depth: where a rank stands (`standing`), and how many words.
STAND = -1
STAND_PART = -2  # more of it follows
MAX_STAND = 300  # words, beside those for the groups


class Channel(Passage):
    """Wakes and is woken through messages. Collective over `private`.

    Args:
        private: this library's own communicator, on which tag `TAG` is left to
            the channel.
        lane: a duplicate for the users of ``g.comm``; None if there are none.
        ident: names it, the same on all ranks.
        interruption: called as ``interruption(rank, operation)`` in a woken rank,
            with the rank of `private` that failed first and what was given up,
            returns the exception to raise.
    """

    def __init__(
        self,
        private: MPI.Intracomm,
        lane: MPI.Intracomm | None,
        ident: int,
        interruption: Interruption,
    ) -> None:
        super().__init__(private, lane, ident, interruption)
        #: gates that only the failure of this one, from around, closes: those of
        #: communicators within it, and of one that is being made
        self.gates_within: Callable[[], list[Gates]] = list
        self.pending: list[Gates] = []
        #: whether a message of a meeting or a door that was given up may be there
        self.is_dirty = False
        self.needs_relay = self.size > DIRECT_LIMIT
        self._told = told_ranks(self.rank, self.size)
        self._n_sent = array("q", bytes(8 * self.size))
        self._n_received = 0
        self._sends: deque[MPI.Request] = deque()
        self._parts: dict[int, list[int]] = {}  # of where others stand
        # Persistent, so that lists of requests to wait for stay valid.
        self._message = array("q", [UNKNOWN]) * (MAX_STAND + self.size // 4)
        self.start_listening()
        stop_at_exit(self)

    # -- announcing ----------------------------------------------------------------

    def announce(self, inner: Sequence[Waits] = (), depth: int = 0) -> None:
        """Tell the peers that this rank stops here. Not collective, never waits.

        What the peers know already is not told again, so it may be called any
        number of times.

        Args:
            inner: channels whose group lies within this one's. They are given up
                with it, so their gates are told too.
            depth: of the region that has failed, where it is not the innermost.
        """
        is_further_out = self._fail(self.rank, depth or self.depth_here())
        told = [gates for channel in (self, *inner) for gates in channel.gates]
        told += self.pending
        told += self.gates_within()
        numbers = {gates.ident: gates.entered for gates in told}
        news = self.announced.learn(numbers)
        if news or is_further_out:
            self._tell(news)

    def read(self) -> None:
        """Take in the message that was received, and listen for the next.

        Where a signal's handler raises in this, it is done again: so the message is
        known before it is counted, and counted in one with listening anew.
        """
        if self._message[0] != UNKNOWN:
            self._take_in(*self._message.tolist())
            self._n_received += 1
            self._message[0] = UNKNOWN
        self.listen.Start()

    def _take_in(self, rank: int, depth: int, n_pairs: int, *pairs: int) -> None:
        if depth in {STAND, STAND_PART}:
            # Where each begins is told: this may be done again, see `read`.
            begin, *words = pairs[: n_pairs + 1]
            self._parts[rank] = self._parts.get(rank, [])[:begin] + words
            if depth == STAND:
                self.standing.know(rank, decode(self._parts[rank]))
            return
        is_further_out = self._fail(rank, depth)
        pairs = pairs[: 2 * n_pairs]
        numbers = dict(zip(pairs[::2], pairs[1::2], strict=True))
        news = self.announced.learn(numbers)
        if self.needs_relay and (news or is_further_out):
            self._tell(news)

    def _fail(self, rank: int, depth: int) -> bool:
        """Note a failure; return whether it is the first, or further out."""
        if self.failed and depth >= self.failed_depth:
            return False
        if not self.failed:
            self.failed, self.failed_rank = True, rank
        self.failed_depth = depth
        return True

    def _tell(self, news: dict[int, int]) -> None:
        pairs = list(news.items())
        for i in range(0, max(len(pairs), 1), MAX_PAIRS):
            part = pairs[i : i + MAX_PAIRS]
            message = array("q", [self.failed_rank, self.failed_depth, len(part)])
            for pair in part:
                message.extend(pair)
            for rank in self._told:
                self._send(message, rank)

    def _send(self, message: array[int], rank: int) -> None:
        # Small enough to leave at once; held until it is seen to have left.
        self._sends.append(self.private.Isend(message, rank, TAG))
        self._n_sent[rank] += 1
        # Where a region goes on after a failure within, there may be many.
        for _ in range(min(N_LOOKS, len(self._sends))):
            oldest = self._sends.popleft()
            if not oldest.Test():
                self._sends.append(oldest)

    def tell_stand(self, stand: Stand) -> None:
        """Tell all peers where this rank stands. Not collective, never waits."""
        if stand == self.standing.told:
            return
        self.standing.told = stand
        self.standing.know(self.rank, stand)
        words = encode(stand)
        most = len(self._message) - HEAD - 1
        for begin in range(0, len(words), most):
            part = words[begin : begin + most]
            kind = STAND if begin + most >= len(words) else STAND_PART
            message = array("q", [self.rank, kind, len(part), begin, *part])
            for rank in range(self.size):
                if rank != self.rank:
                    self._send(message, rank)

    # -- after the agreement -------------------------------------------------------

    def flush(self) -> None:
        """Receive what is still under way where no failure is agreed.

        Collective over `private`, right after an agreement that says that a rank
        has told where it stands.
        """
        self._receive_all()
        self.private.Barrier()  # what is told next is of what comes next
        self._n_sent = array("q", bytes(8 * self.size))
        self._n_received = 0
        self.standing.forget()

    def drain(self) -> None:
        """Receive what is still under way, and be as new.

        Collective over `private`, to be called by every rank right after an
        agreement that says that a rank has failed. Communicators taken from the
        lane before raise at once from now on.
        """
        from mpi4py import MPI

        self._receive_all()
        # The lane is clean if nothing but gates took place on it, and all ranks
        # have entered all of them.
        entered = self.gates[0].entered
        door = self.door.entered
        is_dirty = bool(self.pending) or self.is_dirty
        mine = array("q", [self.used, entered, -entered, new_ident(), door, is_dirty])
        most = array("q", bytes(8 * len(mine)))
        # It also keeps every rank here until all have received everything, so
        # that a next region's announcement is not taken for one of this region.
        self.private.Allreduce(mine, most, MPI.MAX)
        self.announced = Announced()
        self.is_dirty = bool(most[5])
        self.pending.clear()
        self._n_sent = array("q", bytes(8 * self.size))
        self._n_received = 0
        self.door.entered = most[4]  # no number comes twice
        self.standing.forget()
        if most[0] or most[1] != -most[2]:
            self.replace_lane(most[3])
        else:
            self.renew(most[3])

    def _receive_all(self) -> None:
        """Receive all that was sent to this rank. Collective over `private`."""
        from mpi4py import MPI

        self.needs_relay, needs_relay = False, self.needs_relay  # counts are final
        n_expected = array("q", [0])
        self.private.Reduce_scatter_block(self._n_sent, n_expected)
        # A signal may have come between the receipt of a message and its reading.
        if self.listen.Test():
            self.read()
        while self._n_received < n_expected[0]:
            self.listen.Wait()
            self.read()
        MPI.Request.Waitall(list(self._sends))
        self._sends.clear()
        self.needs_relay = needs_relay

    def close(self) -> None:
        """Stop listening and free the lane, before `private` is freed.

        Collective over `private`.
        """
        self.stop_listening()
        super().close()

    def start_listening(self) -> None:
        """Have a receive under way from now on. Not collective."""
        self.listen = self.private.Recv_init(self._message, tag=TAG)
        self.listen.Start()

    def stop_listening(self) -> None:
        """Cancel the receive that is always under way. Not collective."""
        forget(self)
        self.listen.Cancel()
        self.listen.Wait()
        self.listen.Free()


def told_ranks(rank: int, size: int) -> list[int]:
    """Return the ranks that a rank tells what is news to it."""
    if size <= DIRECT_LIMIT:
        return [other for other in range(size) if other != rank]
    steps = [1 << k for k in range(size.bit_length()) if 1 << k < size]
    near = {(rank + sign * step) % size for step in steps for sign in (1, -1)}
    return sorted(near - {rank})
