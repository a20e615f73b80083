"""What each method of mpi4py's communicators does on ``g.comm``.

A table of names, so that nothing slips by: a test compares it with what the
installed mpi4py has, and an interruptible communicator refuses what is missing
here. Owns no behaviour; that is in `interruptible`, `pending` and `objects`.
"""

from __future__ import annotations

# Blocking collectives on buffers: a look at what they are given (see `calls`), a gate,
# then mpi4py's own, unless the gate has brought what is small (see `slots`).
GATED = frozenset({
    "Allgather", "Allgatherv", "Allreduce", "Alltoall", "Alltoallv", "Alltoallw",
    "Bcast", "Cart_map", "Exscan", "Gather", "Gatherv", "Graph_map",
    "Neighbor_allgather", "Neighbor_allgatherv", "Neighbor_alltoall",
    "Neighbor_alltoallv", "Neighbor_alltoallw",
    "Reduce", "Reduce_scatter", "Reduce_scatter_block", "Scan", "Scatter", "Scatterv",
})  # fmt: skip

# Written out in `interruptible` and `objects`, each in its own way.
OWN = frozenset({
    "Barrier", "barrier",
    "Send", "Ssend", "Rsend", "Bsend", "Recv", "Sendrecv", "Sendrecv_replace",
    "send", "ssend", "bsend", "recv", "sendrecv",
    "Probe", "probe", "Mprobe", "mprobe",
    "Iprobe", "iprobe", "Improbe", "improbe",
    "bcast", "gather", "scatter", "allgather", "alltoall",
    "reduce", "allreduce", "scan", "exscan",
    "Free", "Disconnect", "free",
})  # fmt: skip

# Return at once, with a request whose waiting can be interrupted.
STARTED = frozenset({
    "Isend", "Issend", "Irsend", "Ibsend", "Irecv", "Isendrecv",
    "Isendrecv_replace", "isend", "issend", "ibsend", "irecv",
    "Iallgather", "Iallgatherv", "Iallreduce", "Ialltoall", "Ialltoallv",
    "Ialltoallw", "Ibarrier", "Ibcast", "Iexscan", "Igather", "Igatherv",
    "Ineighbor_allgather", "Ineighbor_allgatherv", "Ineighbor_alltoall",
    "Ineighbor_alltoallv", "Ineighbor_alltoallw", "Ireduce", "Ireduce_scatter",
    "Ireduce_scatter_block", "Iscan", "Iscatter", "Iscatterv",
    "Send_init", "Ssend_init", "Rsend_init", "Bsend_init", "Recv_init",
    "Psend_init", "Precv_init",
})  # fmt: skip

# Where among the arguments of these whom they send to stands; and from whom they receive,
# of what is received when the request is done, once.
DEST = {
    "Isend": 1, "Issend": 1, "Irsend": 1, "Ibsend": 1, "isend": 1, "issend": 1,
    "ibsend": 1, "Isendrecv": 1, "Isendrecv_replace": 1,
    "Send_init": 1, "Ssend_init": 1, "Rsend_init": 1, "Bsend_init": 1, "Psend_init": 2,
}  # fmt: skip
SOURCE = {"Irecv": 1, "irecv": 1}

# Collectives that make a persistent request, and may wait for each other.
GATED_INIT = frozenset({
    "Allgather_init", "Allgatherv_init", "Allreduce_init", "Alltoall_init",
    "Alltoallv_init", "Alltoallw_init", "Barrier_init", "Bcast_init",
    "Exscan_init", "Gather_init", "Gatherv_init",
    "Neighbor_allgather_init", "Neighbor_allgatherv_init",
    "Neighbor_alltoall_init", "Neighbor_alltoallv_init",
    "Neighbor_alltoallw_init",
    "Reduce_init", "Reduce_scatter_block_init", "Reduce_scatter_init",
    "Scan_init", "Scatter_init", "Scatterv_init",
})  # fmt: skip

# A gate, then a communicator that can be interrupted as well.
DERIVED = frozenset({
    "Clone", "Create", "Create_cart", "Create_dist_graph",
    "Create_dist_graph_adjacent", "Create_graph", "Dup", "Dup_with_info",
    "Split", "Split_type", "Sub",
})  # fmt: skip

# Lowercase neighbour collectives, made of the gated ones below.
NEIGHBOR_OBJECTS = frozenset({"neighbor_allgather", "neighbor_alltoall"})

# Pass through to mpi4py: they wait for no other rank, and send it nothing.
LOCAL = frozenset({
    "Abort", "Call_errhandler", "Compare",
    "Create_errhandler", "Create_keyval", "Delete_attr", "Free_keyval",
    "Get_attr", "Get_errhandler", "Get_failed", "Get_group", "Get_info",
    "Get_name", "Get_parent", "Get_rank", "Get_size", "Get_topology",
    "Is_inter", "Is_intra", "Is_revoked", "Set_attr", "Set_errhandler",
    "Set_info", "Set_name", "f2py", "fromhandle", "fromint", "group", "handle",
    "info", "is_inter", "is_intra", "is_topo", "name", "py2f", "rank", "size",
    "toint", "topology",
    # of topologies
    "Get_cart_rank", "Get_coords", "Get_dim", "Get_dims", "Get_dist_neighbors",
    "Get_dist_neighbors_count", "Get_neighbors", "Get_neighbors_count",
    "Get_topo", "Shift", "coords", "degrees", "dim", "dims", "edges", "indegree",
    "index", "inedges", "inoutedges", "ndim", "nedges", "neighbors",
    "nneighbors", "nnodes", "outdegree", "outedges", "periods", "topo",
})  # fmt: skip

_ELSEWHERE = "call it on the communicator that was given to guard()"
_MINE = "g.comm is kept in order by allraise"

# Raise, with the reason: they would wait where no failure can wake them.
REFUSED = {
    "Accept": _ELSEWHERE,
    "Ack_failed": _MINE,
    "Agree": _MINE,
    "Attach_buffer": "use MPI.Attach_buffer",
    "Connect": _ELSEWHERE,
    "Create_from_group": "it has no communicator to interrupt; use g.comm.Create",
    "Create_group": "only some ranks call it; use g.comm.Create or g.comm.Split",
    "Create_intercomm": _ELSEWHERE,
    "Detach_buffer": "use MPI.Detach_buffer",
    "Flush_buffer": "use MPI.Flush_buffer",
    "Iagree": _MINE,
    "Idup": "use g.comm.Dup",
    "Idup_with_info": "use g.comm.Dup_with_info",
    "Iflush_buffer": "use MPI.Iflush_buffer",
    "Ishrink": _MINE,
    "Join": _ELSEWHERE,
    "Revoke": _MINE,
    "Shrink": _MINE,
    "Spawn": _ELSEWHERE,
    "Spawn_multiple": _ELSEWHERE,
}

KNOWN = (
    GATED
    | OWN
    | STARTED
    | GATED_INIT
    | DERIVED
    | NEIGHBOR_OBJECTS
    | LOCAL
    | frozenset(REFUSED)
)
