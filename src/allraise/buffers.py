"""Buffers looked at as mpi4py will look at them, before anybody waits for this rank.

Owns what a collective's buffers may be. mpi4py parses them in the collective itself,
where the other ranks are already if this one's are refused. So they are looked at
before the gate, by mpi4py: a persistent request on ``COMM_SELF`` that is never started
parses a buffer, and does nothing else. That takes a microsecond, so

- an array like one seen before is known by its flags and its dtype;
- what only a collective has is looked at here: blocks; counts and datatypes for each
  rank are in `blocks`.

Not collective. What is raised is what mpi4py would raise, but for values that MPI
itself would refuse, which are a ValueError.
"""

from __future__ import annotations

import functools
import operator
from typing import TYPE_CHECKING, Any, Final

from allraise.kinds import mpi

if TYPE_CHECKING:
    from collections.abc import Callable

    from mpi4py import MPI

#: a buffer's memory, the count, the displacement (or those of each rank), the datatype
Parts = tuple[Any, Any, Any, Any]

# What of arrays a small reduction may be done with at the gate: mpi4py's codes of their
# dtypes. The first two are rounded, see `_gated.c`.
CODES: Final = "fd?bhilqBHILQ"

# What mpi4py has parsed before: dtypes of arrays, and MPI's own datatypes, by handle.
# With each its place among `CODES`, or -1; with those of MPI their extent, too.
_dtypes: dict[Any, int] = {}
_datatypes: dict[int, tuple[int, int]] = {}


def is_plain(spec: Any) -> bool:
    """Tell whether it is an array like one parsed before, to send or to receive in."""
    # Not by an AttributeError, which takes as long as all else.
    flags = getattr(spec, "flags", None)
    try:
        # contiguous, aligned, and may be written to
        return flags is not None and flags.carray and spec.dtype in _dtypes
    except (AttributeError, TypeError):  # none of numpy's
        return False


def send(spec: Any, blocks: int = 1) -> None:
    """Raise what mpi4py would for a buffer to send, in so many equal blocks."""
    if is_plain(spec) or _is_readable(spec):
        if blocks == 1 or not spec.size % blocks:
            return
    elif _is_known(spec, blocks):
        return
    _parse(spec, blocks, mpi().COMM_SELF.Send_init)


def receive(spec: Any, blocks: int = 1) -> None:
    """Raise what mpi4py would for a buffer to receive in, in so many equal blocks."""
    if is_plain(spec):
        if blocks == 1 or not spec.size % blocks:
            return
    elif _is_known(spec, blocks):
        return
    _parse(spec, blocks, mpi().COMM_SELF.Recv_init)


def is_in_place(spec: Any) -> bool:
    """Tell whether mpi4py takes it for ``MPI.IN_PLACE``, where that may stand."""
    return spec is None or spec is mpi().IN_PLACE


def is_whole(spec: Any) -> bool:
    """Tell whether it is all of an array like one parsed before, with a datatype."""
    return isinstance(spec, (list, tuple)) and len(spec) == 2 and _is_known(spec, 1)  # noqa: PLR2004


def reduction(sendbuf: Any, recvbuf: Any, blocks: int = 1) -> int:
    """Raise what mpi4py would for the two buffers of a reduction.

    Args:
        sendbuf: To send, or ``MPI.IN_PLACE``.
        recvbuf: To receive in.
        blocks: Of which `sendbuf` has so many, and `recvbuf` one.

    Returns:
        The place among `CODES` of what both are arrays of, all of them; or -1.
    """
    dtype = getattr(recvbuf, "dtype", None)
    if sendbuf is recvbuf and not is_in_place(sendbuf):
        message = "sendbuf and recvbuf are the same: pass MPI.IN_PLACE as sendbuf"
        raise ValueError(message)
    try:
        if dtype is None:
            if _are_known(sendbuf, recvbuf, blocks):
                whole = len(recvbuf) == 2  # noqa: PLR2004
                return _datatypes[recvbuf[-1].handle][1] if whole else -1
        elif sendbuf is mpi().IN_PLACE:
            if recvbuf.flags.carray and not recvbuf.size % blocks:
                return _dtypes[dtype]
        elif (  # as `is_plain`, without the calls
            dtype is sendbuf.dtype
            and recvbuf.flags.carray
            and sendbuf.flags.carray
            and sendbuf.size == blocks * recvbuf.size
        ):
            return _dtypes[dtype]
    except (AttributeError, TypeError, KeyError):
        pass
    _parse_reduction(sendbuf, recvbuf, blocks)
    return -1


def _parse_reduction(sendbuf: Any, recvbuf: Any, blocks: int) -> None:
    if is_in_place(sendbuf):
        receive(recvbuf, blocks)
        return
    receive(recvbuf)
    send(sendbuf, blocks)
    there, here = counted(sendbuf, blocks), counted(recvbuf)
    if there is None or here is None:
        return
    if there[1] != here[1]:
        message = "mismatch in send and receive MPI datatypes"
        raise ValueError(message)
    if there[0] != here[0]:
        message = f"mismatch in send count {there[0]} and receive count {here[0]}"
        raise ValueError(message)


def counted(spec: Any, blocks: int = 1) -> tuple[int, MPI.Datatype] | None:
    """Return how many entries a block of a parsed buffer has, and of which datatype.

    Returns:
        None where only mpi4py can tell.
    """
    datatypes = mpi().Datatype
    memory, count, displ, datatype = _parts(spec)
    try:
        if datatype is None:
            code = memoryview(memory).format
            datatype = datatypes.fromcode(code.lstrip("@<>="))
        elif isinstance(datatype, str):
            datatype = datatypes.fromcode(datatype)
        if count is not None:
            return operator.index(count), datatype
        n_bytes = getattr(memory, "nbytes", None)
        if n_bytes is None:
            n_bytes = memoryview(memory).nbytes
        return (n_bytes // datatype.extent - (displ or 0)) // blocks, datatype
    except Exception:  # memory of a GPU, say, that Python cannot look at
        return None


def _is_readable(spec: Any) -> bool:
    """Tell whether an array is like one parsed before, but for being read-only."""
    flags = getattr(spec, "flags", None)
    try:
        is_right = flags is not None and flags.c_contiguous and flags.aligned
        return is_right and spec.dtype in _dtypes
    except (AttributeError, TypeError):
        return False


def _is_known(spec: Any, blocks: int) -> bool:
    """Tell whether an array with one of MPI's datatypes is like one parsed before."""
    if not isinstance(spec, (list, tuple)):
        return type(spec) is bytearray and not len(spec) % blocks
    try:
        if len(spec) == 2:  # noqa: PLR2004
            (memory, datatype), count = spec, None
        else:
            memory, count, datatype = spec
        known = _datatypes.get(datatype.handle)
        if known is None or not is_plain(memory):
            return False
        if count is None:
            return not memory.nbytes % (known[0] * blocks)
        return type(count) is int and count >= 0
    except (AttributeError, ValueError):
        return False


def _are_known(sendbuf: Any, recvbuf: Any, blocks: int) -> bool:
    """Tell whether two arrays with one datatype are known, and fit a reduction."""
    for spec, n in ((recvbuf, 1), (sendbuf, blocks)):
        if not isinstance(spec, (list, tuple)) or not _is_known(spec, n):
            return False
    if recvbuf[-1] is not sendbuf[-1] or len(recvbuf) != len(sendbuf):
        return False
    there, here = sendbuf[0].nbytes, recvbuf[0].nbytes
    if len(recvbuf) == 3:  # noqa: PLR2004
        blocks, there, here = 1, sendbuf[1], recvbuf[1]
    return there is not None and there == here * blocks


def _parse(spec: Any, blocks: int, init: Callable[..., Any]) -> None:
    """Have a buffer parsed; note its kind as one that is known."""
    init(spec, 0).Free()
    memory, count, _, datatype = _parts(spec)
    if datatype is None and hasattr(memory, "flags") and hasattr(memory, "dtype"):
        dtype = memory.dtype
        is_native = getattr(dtype, "isnative", False)
        _dtypes[dtype] = CODES.find(dtype.char) if is_native else -1
    elif (
        isinstance(datatype, mpi().Datatype)
        and datatype.is_predefined
        and datatype.size == datatype.extent  # what is in a gap is not MPI's to move
    ):
        place = _places().get(datatype.handle, -1)
        _datatypes[datatype.handle] = datatype.extent, place
    if blocks == 1 or count is not None:
        return
    found = counted(spec)
    if found is not None and found[0] % blocks:
        message = (
            f"message: cannot infer count, number of entries {found[0]} is not a "
            f"multiple of required number of blocks {blocks}"
        )
        raise ValueError(message)


@functools.cache
def _places() -> dict[int, int]:
    """Return the place of each of MPI's datatypes among `CODES`, by its handle."""
    fromcode = mpi().Datatype.fromcode
    return {fromcode(code).handle: place for place, code in enumerate(CODES)}


def _parts(spec: Any) -> Parts:
    """Return the parts of a buffer, after it was parsed."""
    if not isinstance(spec, (list, tuple)):
        return spec, None, None, None
    memory, *rest = spec
    if len(rest) == 3:  # noqa: PLR2004
        return memory, *rest
    datatype = None
    if len(rest) == 2 or is_datatype(rest[0]):  # noqa: PLR2004
        datatype = rest.pop()
    count = rest[0] if rest else None
    if isinstance(count, (list, tuple)):
        return memory, *count, datatype
    return memory, count, None, datatype


def is_datatype(obj: Any) -> bool:
    """Tell whether it names a datatype."""
    return isinstance(obj, (str, mpi().Datatype))
