"""Calls of collectives looked at before the ranks meet, so that one may refuse its own.

Owns what mpi4py's collective methods may be given: a function of the same name and
the same parameters for each (a test compares them), which raises what mpi4py or MPI
would raise on this rank alone, behind the gate, where the others wait for it.
::

    Python binds the arguments -> buffers (`buffers`, `blocks`), op, root, colours, groups

Of a broadcast and a reduction to all a look returns a number, if what is small of that
kind can be done at the gate alone: where all ranks have the same one (see `_gated.c`).

What the ranks give each other, such as lengths that do not fit, is not seen here. Not
collective.
"""

# ruff: noqa: N802 - mpi4py's methods, with mpi4py's names and meaning

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from allraise import deriving
from allraise.blocks import receive_any, receive_each, send_any, send_each
from allraise.buffers import (
    CODES,
    counted,
    is_in_place,
    is_plain,
    is_whole,
    receive,
    reduction,
    send,
)
from allraise.direct import local_reduction
from allraise.kinds import (
    DEFAULT,
    OPS,
    REDUCTIONS,
    ZERO,
    mpi,
    numbers,
    one_of_mpi,
    operation,
    rank_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[..., int | None]

# What of a small collective is done at the gate; as in `_gated.c`.
_BCAST: Final = 1
_ALLREDUCE: Final = 2

# Of what a look at a reduction returns, those of the datatype; as in `_gated.c`.
OP_BITS: Final = 8

# What MPI can do with numbers of each code, as places among `REDUCTIONS`: sums and the
# like of all but truth values, and with bits and truth values of all but floats.
_SUMS, _TRUTHS = {0, 1, 2, 3}, {4, 6, 8}
VALID: Final = tuple(
    _TRUTHS if code == "?" else _SUMS if code in "fd" else set(range(len(REDUCTIONS)))
    for code in CODES
)

# -- data ----------------------------------------------------------------------------


def Bcast(comm: Any, buf: Any, root: Any = 0) -> int | None:
    """Look at a broadcast; return its root."""
    if root is not ZERO:
        root = rank_of(comm, root)
    if is_plain(buf) or is_whole(buf):
        return root  # type: ignore[no-any-return]
    (send if comm.rank == root else receive)(buf)
    return None


def Gather(comm: Any, sendbuf: Any, recvbuf: Any, root: Any = 0) -> None:
    """Look at a gather."""
    _gather(comm, sendbuf, recvbuf, root, receive)


def Gatherv(comm: Any, sendbuf: Any, recvbuf: Any, root: Any = 0) -> None:
    """Look at a gather of different lengths."""
    _gather(comm, sendbuf, recvbuf, root, receive_each)


def _gather(comm: Any, sendbuf: Any, recvbuf: Any, root: Any, receive: Look) -> None:
    if comm.rank == rank_of(comm, root):
        receive(recvbuf, comm.size)
        if is_in_place(sendbuf):
            return
    send(sendbuf)


def Scatter(comm: Any, sendbuf: Any, recvbuf: Any, root: Any = 0) -> None:
    """Look at a scatter."""
    _scatter(comm, sendbuf, recvbuf, root, send)


def Scatterv(comm: Any, sendbuf: Any, recvbuf: Any, root: Any = 0) -> None:
    """Look at a scatter of different lengths."""
    _scatter(comm, sendbuf, recvbuf, root, send_each)


def _scatter(comm: Any, sendbuf: Any, recvbuf: Any, root: Any, send: Look) -> None:
    if comm.rank == rank_of(comm, root):
        send(sendbuf, comm.size)
        if is_in_place(recvbuf):
            return
    receive(recvbuf)


def Allgather(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at a gather to all."""
    receive(recvbuf, comm.size)
    if not is_plain(sendbuf) and not is_in_place(sendbuf):
        send(sendbuf)


def Allgatherv(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at a gather of different lengths to all."""
    receive_each(recvbuf, comm.size)
    if not is_plain(sendbuf) and not is_in_place(sendbuf):
        send(sendbuf)


def Alltoall(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange."""
    _alltoall(comm, sendbuf, recvbuf, send, receive)


def Alltoallv(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange of different lengths."""
    _alltoall(comm, sendbuf, recvbuf, send_each, receive_each)


def Alltoallw(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange of different datatypes."""
    _alltoall(comm, sendbuf, recvbuf, send_any, receive_any)


def _alltoall(comm: Any, sendbuf: Any, recvbuf: Any, send: Look, receive: Look) -> None:
    receive(recvbuf, comm.size)
    if not is_in_place(sendbuf):
        send(sendbuf, comm.size)


# -- between neighbours --------------------------------------------------------------


def Neighbor_allgather(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at a gather from the neighbours."""
    send(sendbuf)
    receive(recvbuf, comm.indegree or 1)


def Neighbor_allgatherv(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at a gather of different lengths from the neighbours."""
    send(sendbuf)
    receive_each(recvbuf, comm.indegree)


def Neighbor_alltoall(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange with the neighbours."""
    send(sendbuf, comm.outdegree or 1)
    receive(recvbuf, comm.indegree or 1)


def Neighbor_alltoallv(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange of different lengths with the neighbours."""
    send_each(sendbuf, comm.outdegree)
    receive_each(recvbuf, comm.indegree)


def Neighbor_alltoallw(comm: Any, sendbuf: Any, recvbuf: Any) -> None:
    """Look at an exchange of different datatypes with the neighbours."""
    receive_any(recvbuf, comm.indegree)
    send_any(sendbuf, comm.outdegree)


# -- reductions ----------------------------------------------------------------------


def Reduce(
    comm: Any, sendbuf: Any, recvbuf: Any, op: Any = DEFAULT, root: Any = 0
) -> None:
    """Look at a reduction to one rank."""
    operation(op)
    if root is not ZERO:
        root = rank_of(comm, root)
    if comm.rank == root:
        reduction(sendbuf, recvbuf)
    else:
        send(sendbuf)


def Allreduce(_comm: Any, sendbuf: Any, recvbuf: Any, op: Any = DEFAULT) -> int | None:
    """Look at a reduction to all ranks; return the numbers of op and datatype.

    Also at one to the ranks above, where nobody asks for them.
    """
    place: int | None = 0
    if op is not DEFAULT:
        known = OPS.get(id(op))
        place = operation(op) if known is None else known[0]
    code = reduction(sendbuf, recvbuf)
    if place is None or code < 0 or place not in VALID[code]:
        return None
    return place << OP_BITS | code


def Reduce_scatter_block(
    comm: Any, sendbuf: Any, recvbuf: Any, op: Any = DEFAULT
) -> None:
    """Look at a reduction whose result is scattered evenly."""
    operation(op)
    reduction(sendbuf, recvbuf, comm.size)


def Reduce_scatter(
    comm: Any, sendbuf: Any, recvbuf: Any, recvcounts: Any = None, op: Any = DEFAULT
) -> None:
    """Look at a reduction whose result is scattered.

    Without counts mpi4py asks the others for them.
    """
    operation(op)
    receive(recvbuf)
    in_place = is_in_place(sendbuf)
    if not in_place:
        send(sendbuf)
    if recvcounts is None and not in_place:
        return
    counts = numbers(recvcounts, comm.size)
    whole, part = counted(recvbuf if in_place else sendbuf), counted(recvbuf)
    if whole is None or part is None:
        return
    if whole[1] != part[1]:
        message = "mismatch in send and receive MPI datatypes"
        raise ValueError(message)
    if whole[0] != sum(counts):
        message = f"mismatch in count {whole[0]} and sum(counts) {sum(counts)}"
        raise ValueError(message)
    if not in_place and part[0] != counts[comm.rank]:
        message = f"mismatch in receive count {part[0]} and {counts[comm.rank]}"
        raise ValueError(message)


# -- the table -----------------------------------------------------------------------


def _named(name: str, function: Any) -> Look:
    """Return a function under another name, for what Python says of its arguments."""
    code, defaults = function.__code__, function.__defaults__
    named = FunctionType(code, function.__globals__, name, defaults)
    named.__qualname__ = name
    return named


#: by the name of the method
LOOKS: Final[dict[str, Look]] = {
    look.__name__: look
    for look in (
        *(Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Alltoallw, Bcast),
        *(Gather, Gatherv, Neighbor_allgather, Neighbor_allgatherv, Neighbor_alltoall),
        *(Neighbor_alltoallv, Neighbor_alltoallw, Reduce, Reduce_scatter),
        *(Reduce_scatter_block, Scatter, Scatterv),
        *(_named("Exscan", Allreduce), _named("Scan", Allreduce)),
        *deriving.LOOKS,
    )
}


def at_gate(name: str) -> tuple[Any, ...]:
    """Return what `plain.Gated` is to know of a method, to do it at the gate.

    Not collective. Nothing, of one that has a collective behind it always.
    """
    if name == "Bcast":
        return (_BCAST,)
    reduce = local_reduction()
    if name != "Allreduce" or not reduce:
        return ()
    types = [mpi().Datatype.fromcode(code) for code in CODES]
    numbers = (
        tuple(getattr(mpi(), op).handle for op in REDUCTIONS),
        tuple(datatype.handle for datatype in types),
        tuple(datatype.extent for datatype in types),
    )
    return _ALLREDUCE, (reduce, *numbers)


def look_at_init(base: type, name: str) -> Look:
    """Return what looks at a method that makes a persistent collective.

    It takes what the collective takes, and hints.
    """
    signature = inspect.signature(getattr(base, name))
    of_collective = LOOKS.get(name.removesuffix("_init"))

    def look(comm: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(comm, *args, **kwargs).arguments
        given.pop("self")
        one_of_mpi(given.pop("info", DEFAULT), "Info", "info")
        if of_collective is not None:
            of_collective(comm, **given)

    return look
