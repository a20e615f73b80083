"""Moving the records of a failure: to the root, and a summary back.

Owns the collectives of the failure path. Moves bytes only: all objects are pickled
before they begin, and nothing that a rank's record holds can raise between them::

    few ranks     every rank --- comm.gather(bytes) ---> root
    many ranks    tree of eight branches: recv, merge, send -> root, log P messages
    then          root --- send, recv, send -----------> every rank, down a tree
    last          one rank for each distinct stack -----> root, where it lacks it

Why a tree: a gather puts P - 1 messages and P records into the root. Merged on
the way, what arrives grows with the number of different failures and log P
(LLNL STAT does this with stacks). Point to point on the private communicator,
and not ``comm.reduce`` with an operation, because mpi4py's lowercase reductions
duplicate the communicator at their first use (see `private`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allraise.bundle import Bundle
from allraise.chains import describe
from allraise.polling import receive
from allraise.ranks import RankSet
from allraise.record import minimal
from allraise.wire import dump_plain, load_plain

if TYPE_CHECKING:
    from allraise.outline import Outline
    from allraise.private import Private

# Up to here one gather is faster than a tree of dependent messages, and holds
# every record whole.
MAX_GATHERED_RANKS: Final = 16

# Of the tree. To merge is what takes long, above all where many ranks share a core and
# each finds nothing of it in the caches: with two branches every second rank has to
# merge, with eight every eighth.
BRANCHES: Final = 8

# What every MPI sends at once; the least of the defaults is Open MPI's through
# shared memory, 4096 with its header.
EAGER_BYTES: Final = 3000

# Of requests that are done, most likely: to ask takes a call that waits.
MAX_SENT: Final = 64

# On the private communicator; the error channel has another.
TAG_TREE: Final = 1
TAG_SPREAD: Final = 2
TAG_STACK: Final = 3

# What a rank sends that has no stack, or no memory to tell it.
_NOTHING: Final = dump_plain({})


def _decode(data: bytes, rank: int) -> Bundle:
    """Read what a rank sent; what cannot be read is told, not raised."""
    if not data:
        return Bundle()
    try:
        return Bundle.decode(data)
    except BaseException as error:
        text = f"its record cannot be read: {describe(error)}"
        return Bundle.of(rank, minimal("<unknown>", text, reason=text))


def _own_words(told: list[Bundle]) -> list[Bundle]:
    """Return what is to be believed first, where ranks tell of others as well.

    What a rank says of its own failure, then what others say of one that it has
    swallowed: that it was interrupted since is the lesser news.
    """
    for rank, bundle in enumerate(told):
        if any(other != rank for other in bundle.ranks):
            own = [known.only(one) for one, known in enumerate(told)]
            return [known.without_interrupted() for known in own + told]
    return []


def _encode(own: Bundle, rank: int) -> bytes:
    """Turn what a rank tells into bytes, or what kept it from that."""
    if not own:
        return b""
    try:
        return own.encode()
    except BaseException as error:
        # The others wait for these bytes.
        text = f"its record cannot be sent: {describe(error)}"
        return Bundle.of(rank, minimal("<unknown>", text, reason=text)).encode()


def _merge(told: list[Bundle]) -> Bundle:
    """Put the failures together; what goes wrong in that is told, not raised."""
    try:
        return Bundle.merge(_own_words(told) + told)
    except BaseException as error:
        # The others wait for the broadcast that follows.
        text = f"the root cannot merge: {describe(error)}"
        merged = Bundle()
        for rank, known in enumerate(told):
            if rank not in known.ranks:
                continue
            try:
                for _, record in known.only(rank).records():
                    merged.add(RankSet((rank,)), record)
            except BaseException:
                merged.add(RankSet((rank,)), minimal("<unknown>", text, reason=text))
        return merged


def gather_bundle(private: Private, own: Bundle, root: int) -> Bundle:
    """Bring the failures of all ranks together on the root.

    Collective over comm.

    Args:
        private: This rank's side.
        own: What this rank contributes; most often nothing.
        root: The same on every rank.

    Returns:
        On the root everything; elsewhere what was merged on the way.
    """
    data = _encode(own, private.rank)
    if private.size <= MAX_GATHERED_RANKS:
        chunks = private.comm.gather(data, root)
        if private.rank != root:
            return own
        told = [_decode(chunk, rank) for rank, chunk in enumerate(chunks)]
        return _merge(told)
    relative = (private.rank - root) % private.size
    merged, step = own, 1
    while step < private.size:
        place = relative // step % BRANCHES
        if place:  # matched by the receive of the parent in its own loop
            parent = (relative - place * step + root) % private.size
            _send(private, data, parent, TAG_TREE)
            break
        received = []
        for child in range(relative + step, relative + BRANCHES * step, step):
            if child < private.size:
                source = (child + root) % private.size
                sent = receive(private.comm, source, TAG_TREE)
                bundle = None
                with suppress(MemoryError):
                    # Read at once: meanwhile others are on their way still.
                    bundle = _decode(sent, source)
                received.append((child, sent, bundle))
        merged, data = _merge_children(private, root, step, (merged, data), received)
        step *= BRANCHES
    return merged


def _merge_children(
    private: Private,
    root: int,
    step: int,
    so_far: tuple[Bundle, bytes],
    received: list[tuple[int, bytes, Bundle | None]],
) -> tuple[Bundle, bytes]:
    """Merge what the children of this rank have sent to what it has. Not collective.

    Args:
        private: This rank's side.
        root: Of the gathering.
        step: From a child to the next.
        so_far: What this rank has, and the same as bytes.
        received: Each child, what it has sent, and the same read, if there was memory.

    Returns:
        It, and as bytes, if this rank is to send it on.
    """
    if not any(sent for _, sent, _ in received):
        return so_far
    merged, data = so_far
    me = (private.rank - root) % private.size
    try:
        told = {me: merged} if merged else {}
        for child, sent, bundle in received:
            if sent:
                told[child] = bundle or _decode(sent, (child + root) % private.size)
        known = list(told.values())
        ranks = [bundle.rank_numbers() for bundle in known]
        if sum(map(len, ranks)) > len(set[int]().union(*ranks)):
            # Rank by rank, what it says of itself is right.
            own_words = [
                bundle.among(
                    rank
                    for rank in bundle.ranks
                    if child <= (rank - root) % private.size < child + step
                )
                for child, bundle in told.items()
            ]
            known = own_words + known
            known = [bundle.without_interrupted() for bundle in known] + known
        merged = Bundle.merge(known, capped=True)
        if private.rank != root:
            data = merged.encode()
    except MemoryError:
        # Pass on what there is: the others wait for this message.
        data = next(filter(None, (data, *(sent for _, sent, _ in received))))
    return merged, data


def ranks_to_ask(
    private: Private, gathered: Bundle, outline: Outline | None
) -> tuple[int, ...]:
    """Return whose stack the root lacks: for each fingerprint, one that has it.

    Not collective.

    Args:
        private: This rank's side.
        gathered: What the root has.
        outline: That of its own failure, if it has one.
    """
    own = None if outline is None else outline.packed.shape
    leaders = {r for shape, r in gathered.outlines().items() if shape != own}
    return tuple(sorted(leaders - {private.rank}))


def complete_outlines(
    private: Private, gathered: Bundle, own: dict[bytes, bytes], asked: tuple[int, ...]
) -> Bundle:
    """Put the stacks where only their fingerprints are.

    Collective over the root, which calls this, and the ranks that it has asked, which
    call `send_whole`. Never raises but for MPI: what cannot be read is left out.

    Args:
        private: This rank's side.
        gathered: What the root has.
        own: From `Outline.whole_while_others_wait`, if its own failure has one.
        asked: From `ranks_to_ask`.
    """
    whole = dict(own)
    # All of them, whatever becomes of one: none is to be there still the next time.
    for data in [receive(private.comm, rank, TAG_STACK) for rank in asked]:
        with suppress(Exception):
            whole |= load_plain(data)
    with suppress(Exception):
        return gathered.reshaped(whole) if whole else gathered
    return gathered


def send_whole(private: Private, outline: Outline | None, root: int) -> None:
    """Write the stack of this rank's failure out for the root, which has asked.

    Collective over the root, which calls `complete_outlines`, and the ranks it asks.
    """
    data = _NOTHING
    with suppress(Exception):
        if outline is not None:
            data = dump_plain(outline.whole_while_others_wait())
    _send(private, data, root, TAG_STACK)
    _progress(private, len(data))


def spread_bytes(private: Private, data: bytes, root: int) -> bytes:
    """Give every rank the bytes of the root, down a binomial tree.

    Collective over comm. By small messages and not ``bcast``, so that the root,
    which has the report, sends and goes on: it waits for nobody.
    """
    size = private.size
    relative = (private.rank - root) % size
    step = 1
    while step < size and not relative & step:
        step <<= 1
    if relative:  # matched by the send of the parent in its own loop
        parent = (relative - step + root) % size
        data = receive(private.comm, parent, TAG_SPREAD)
    while step > 1:
        step >>= 1
        if relative + step < size:
            _send(private, data, (relative + step + root) % size, TAG_SPREAD)
    _progress(private, len(data))
    return data


def _send(private: Private, data: bytes, target: int, tag: int) -> None:
    """Send without waiting. Not collective.

    Open MPI 5.0.11 gives the processor away in each blocking send of more than
    256 bytes: with 32 ranks a core, one ``send`` takes milliseconds.
    """
    private.sent.append(private.comm.isend(data, target, tag))


def _progress(private: Private, n_bytes: int) -> None:
    """Have what was sent go out, also if this rank is not to call MPI for long.

    Not collective. Small messages are on their way once they are sent; large ones
    take a second step of the sender's.
    """
    if n_bytes > EAGER_BYTES or len(private.sent) > MAX_SENT:
        for request in private.sent:
            request.wait()
        private.sent.clear()
