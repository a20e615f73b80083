"""Calls that make communicators, looked at before the ranks meet.

Owns what those of mpi4py's methods may be given, as `calls` does for the others; the
same is meant by the names of functions and parameters. Not collective.
"""

# ruff: noqa: FBT002, N802, PLR0917 - mpi4py's methods, with mpi4py's names and meaning

from __future__ import annotations

import math
from typing import Any, Final

from allraise.kinds import DEFAULT, c_integer, mpi, numbers, one_of_mpi


def Clone(_comm: Any) -> None:
    """Look at a copy."""


def Dup(_comm: Any, info: Any = None) -> None:
    """Look at a duplication."""
    if info is not None:
        one_of_mpi(info, "Info", "info")


def Dup_with_info(_comm: Any, info: Any) -> None:
    """Look at a duplication with hints."""
    one_of_mpi(info, "Info", "info")


def Split(_comm: Any, color: Any = 0, key: Any = 0) -> None:
    """Look at a split."""
    color = c_integer(color, "color")
    c_integer(key, "key")
    if color < 0 and color != mpi().UNDEFINED:
        message = f"color={color} is negative, and not MPI.UNDEFINED"
        raise ValueError(message)


def Split_type(_comm: Any, split_type: Any, key: Any = 0, info: Any = DEFAULT) -> None:
    """Look at a split by the type of what is shared."""
    c_integer(split_type, "split_type")
    c_integer(key, "key")
    one_of_mpi(info, "Info", "info")


def Create(comm: Any, group: Any) -> None:
    """Look at a communicator made of a group."""
    one_of_mpi(group, "Group", "group")
    if not group:
        message = "group is MPI.GROUP_NULL"
        raise ValueError(message)
    mine = comm.Get_group()
    ranks = mpi().Group.Translate_ranks(group, None, mine)
    mine.Free()
    if mpi().UNDEFINED in ranks:
        message = "group has members that are not in the communicator"
        raise ValueError(message)


def Create_cart(
    comm: Any, dims: Any, periods: Any = None, reorder: Any = False
) -> None:
    """Look at a grid."""
    Cart_map(comm, dims, periods)
    bool(reorder)


def Cart_map(comm: Any, dims: Any, periods: Any = None) -> None:
    """Look at the place in a grid."""
    found = numbers(dims)
    if periods is not None and not isinstance(periods, bool):
        numbers(periods, len(found))
    if min(found, default=1) < 1 or math.prod(found) > comm.size:
        message = f"dims={list(found)} is no grid of at most {comm.size} ranks"
        raise ValueError(message)


def Create_graph(comm: Any, index: Any, edges: Any, reorder: Any = False) -> None:
    """Look at a graph."""
    Graph_map(comm, index, edges)
    bool(reorder)


def Graph_map(comm: Any, index: Any, edges: Any) -> None:
    """Look at the place in a graph."""
    ends, found = list(numbers(index)), numbers(edges)
    if ends and ends[0] == 0 and ends[-1] == len(found):
        del ends[0]  # mpi4py takes where each begins, too
    if len(ends) > comm.size or ends != sorted(ends) or ends[-1:] != [len(found)]:
        message = f"index={list(ends)} is none of {len(found)} edges"
        raise ValueError(message)
    _ranks(comm, found, "edges")


def Create_dist_graph_adjacent(
    comm: Any,
    sources: Any,
    destinations: Any,
    sourceweights: Any = None,
    destweights: Any = None,
    info: Any = DEFAULT,
    reorder: Any = False,
) -> None:
    """Look at a graph of which each rank gives its neighbours."""
    n_in = _ranks(comm, sources, "sources")
    _weights(sourceweights, n_in)
    n_out = _ranks(comm, destinations, "destinations")
    _weights(destweights, n_out)
    one_of_mpi(info, "Info", "info")
    bool(reorder)


def Create_dist_graph(
    comm: Any,
    sources: Any,
    degrees: Any,
    destinations: Any,
    weights: Any = None,
    info: Any = DEFAULT,
    reorder: Any = False,
) -> None:
    """Look at a graph of which each rank gives a part."""
    n = _ranks(comm, sources, "sources")
    counts = numbers(degrees, n)
    if min(counts, default=0) < 0:
        message = f"degrees={list(counts)} has negative ones"
        raise ValueError(message)
    n = sum(counts)
    numbers(destinations, n)
    _ranks(comm, destinations, "destinations")
    _weights(weights, n)
    one_of_mpi(info, "Info", "info")
    bool(reorder)


def Sub(comm: Any, remain_dims: Any) -> None:
    """Look at a part of a grid."""
    numbers(remain_dims, comm.ndim)


def _ranks(comm: Any, values: Any, name: str) -> int:
    """Refuse what are no ranks; return how many."""
    found = numbers(() if values is None else values)
    if found and not 0 <= min(found) <= max(found) < comm.size:
        message = f"{name}={list(found)}: pass ranks from 0 to {comm.size - 1}"
        raise ValueError(message)
    return len(found)


def _weights(values: Any, n: int) -> None:
    if any(values is none for none in (None, mpi().UNWEIGHTED, mpi().WEIGHTS_EMPTY)):
        return
    numbers(values, n)


LOOKS: Final = (
    *(Cart_map, Clone, Create, Create_cart, Create_dist_graph),
    Create_dist_graph_adjacent,
    *(Create_graph, Dup, Dup_with_info, Graph_map, Split, Split_type, Sub),
)
