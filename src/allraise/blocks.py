"""Buffers with a count, a displacement or a datatype for each rank.

Owns what of those is looked at before anybody waits for this rank; the memory itself is
looked at by `buffers`. Not collective.
"""

from __future__ import annotations

import operator
from array import array
from typing import TYPE_CHECKING, Any

from allraise.buffers import Parts, is_datatype, receive, send
from allraise.kinds import mpi, numbers

if TYPE_CHECKING:
    from collections.abc import Callable


def send_each(spec: Any, blocks: int) -> None:
    """Raise what mpi4py would for a buffer to send, with counts for each rank."""
    _parse_each(spec, blocks, send)


def receive_each(spec: Any, blocks: int) -> None:
    """Raise what mpi4py would for a buffer to receive in, with counts for each rank."""
    _parse_each(spec, blocks, receive)


def send_any(spec: Any, blocks: int) -> None:
    """Raise what mpi4py would for a buffer to send, with datatypes for each rank."""
    _parse_any(spec, blocks, send)


def receive_any(spec: Any, blocks: int) -> None:
    """Raise what mpi4py would for a buffer to receive in, with such datatypes."""
    _parse_any(spec, blocks, receive)


def _parse_each(spec: Any, blocks: int, look: Callable[[Any], None]) -> None:
    memory, counts, displs, datatype = _parts_of_each(spec)
    if datatype is not None or isinstance(memory, (list, tuple)):
        # Without counts mpi4py divides what there is, evenly or not.
        look([memory, None if counts is None else 0, datatype])
    else:
        look(memory)
    if counts is not None:
        counts = _of_each(counts, blocks)
        if min(counts, default=0) < 0:
            message = f"message: negative count {min(counts)}"
            raise ValueError(message)
    if displs is not None:
        _of_each(displs, blocks)


def _parse_any(spec: Any, blocks: int, look: Callable[[Any], None]) -> None:
    if len(spec) == 2:  # noqa: PLR2004
        (memory, datatypes), counts, displs = spec, None, None
    elif len(spec) == 3:  # noqa: PLR2004
        memory, (counts, displs), datatypes = spec
    elif len(spec) == 4:  # noqa: PLR2004
        memory, counts, displs, datatypes = spec
    else:
        message = "message: expecting 2 to 4 items"
        raise ValueError(message)
    if memory is None or memory is mpi().BOTTOM:
        if counts is None or displs is None:
            missing = "counts" if counts is None else "displs"
            message = f"message: BOTTOM requires {missing}"
            raise ValueError(message)
    else:
        look([memory, 0, mpi().BYTE])
    if not (counts is None and displs is None):
        numbers(counts, blocks)
        numbers(displs, blocks)
    datatypes = list(datatypes)
    if len(datatypes) != blocks:
        message = f"expecting {blocks} items, got {len(datatypes)}"
        raise ValueError(message)
    for datatype in datatypes:
        if not isinstance(datatype, mpi().Datatype):
            message = f"expecting a Datatype, got {type(datatype).__name__}"
            raise TypeError(message)


def _parts_of_each(spec: Any) -> Parts:
    """Return the parts of a buffer with counts, which was not parsed."""
    if not isinstance(spec, (list, tuple)):
        return spec, None, None, None
    memory, *rest = spec or (None,)
    if not 1 <= len(rest) <= 3:  # noqa: PLR2004
        message = "message: expecting 2 to 4 items"
        raise ValueError(message)
    if len(rest) == 3:  # noqa: PLR2004
        return memory, *rest
    datatype = None
    if len(rest) == 2 or is_datatype(rest[0]):  # noqa: PLR2004
        datatype = rest.pop()
    counts = rest[0] if rest else None
    if isinstance(counts, tuple):
        counts, displs = counts
        return memory, counts, displs, datatype
    return memory, counts, None, datatype


def _of_each(values: Any, blocks: int) -> array[int]:
    """Return what counts or displacements are for each rank."""
    if isinstance(values, (list, tuple)):
        return numbers(values, blocks)
    try:
        return array("q", [operator.index(values)]) * blocks
    except TypeError:
        return numbers(values, blocks)
