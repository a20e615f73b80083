"""Which call a thread stands in, seen from another one.

Owns how it is known that a thread sits in a call of MPI, or waits for other ranks in
allraise, and whether that can never return. Runs no code of the user.
"""

from __future__ import annotations

import ast
import linecache
import sys
import threading
from inspect import getattr_static
from itertools import islice
from pathlib import Path
from types import BuiltinMethodType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.own import is_own_file
from allraise.plain import OPEN
from allraise.private import step_of
from allraise.stacks import main_frame

if TYPE_CHECKING:
    from types import FrameType

    from mpi4py import MPI

    from allraise.private import Opened
    from allraise.ranks import RankSet

# What a call has to be part of to be looked at; a whole script is not parsed.
MAX_CALL_CHARS: Final = 4000

# Without every rank of the communicator none of these ever returns.
COLLECTIVES: Final = frozenset(
    {
        "barrier",
        "bcast",
        "gather",
        "gatherv",
        "scatter",
        "scatterv",
        "allgather",
        "allgatherv",
        "alltoall",
        "alltoallv",
        "alltoallw",
        "reduce",
        "allreduce",
        "reduce_scatter",
        "reduce_scatter_block",
        "scan",
        "exscan",
        "dup",
        "split",
        "create",
    }
)

# Calls on communicators and requests that wait for nobody, by how they begin.
_NEVER_WAIT: Final = ("i", "test", "get_", "set_", "start", "cancel")

# Where allraise itself computes, or has a reason of its own to wait.
_BUSY: Final = frozenset(
    {"alarm", "bodies", "bundle", "capture", "launcher", "record", "witness"}
)


class Call(NamedTuple):
    """An MPI call that a thread sits in: its text, name, and communicator."""

    text: str
    name: str
    comm: Any


def _text_of_call(frame: FrameType) -> str:
    """Return the source text of the call that the frame is in, or nothing."""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, end_line, column, end_column = next(positions, (None,) * 4)
    if not line or not end_line or column is None or end_column is None:
        return ""
    source = [
        linecache.getline(frame.f_code.co_filename, n).encode()
        for n in range(line, end_line + 1)
    ]
    source[-1] = source[-1][:end_column]
    source[0] = source[0][column:]
    text = b"".join(source).decode(errors="replace")
    return text if len(text) <= MAX_CALL_CHARS else ""


def _use_of_ours(frame: FrameType) -> str:
    """Return what of allraise a frame uses; empty for the block of a whole `with`."""
    text = _text_of_call(frame)
    try:
        tree = ast.parse(f"({text})", mode="eval").body
    except SyntaxError:
        return ""
    is_use = isinstance(tree, (ast.Call, ast.Attribute))  # the latter is `g.comm`
    return " ".join(text.split()) if is_use else ""


def _resolve(node: ast.expr, frame: FrameType) -> Any:
    """Find what an expression of names and dots stands for, running nothing."""
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals, frame.f_builtins):
            if node.id in names:
                return names[node.id]
        return None
    if not isinstance(node, ast.Attribute):
        return None
    owner = _resolve(node.value, frame)
    if isinstance(owner, ModuleType):
        return vars(owner).get(node.attr)
    found = getattr_static(owner, node.attr, None)
    if isinstance(found, MemberDescriptorType):  # a slot: reading it runs nothing
        return found.__get__(owner)
    return found


def _call_in(frame: FrameType) -> Call | None:
    mpi: Any = sys.modules.get("mpi4py.MPI")
    text = _text_of_call(frame)
    if mpi is None or not text:
        return None
    tree = ast.parse(f"({text})", mode="eval").body
    if not isinstance(tree, ast.Call):
        return None
    function = tree.func
    if isinstance(function, ast.Attribute):
        owner, name = _resolve(function.value, frame), function.attr
    else:  # a bound method under another name
        method = _resolve(function, frame)
        owner, name = None, ""
        if isinstance(method, BuiltinMethodType):
            owner, name = method.__self__, method.__name__
    if isinstance(owner, mpi.Comm):
        return Call(" ".join(text.split()), name, owner)
    if isinstance(owner, (mpi.Request, mpi.Message)) or (
        isinstance(owner, type) and issubclass(owner, (mpi.Request, mpi.Comm))
    ):
        return Call(" ".join(text.split()), name, None)
    return None


def call_in_progress() -> Call | None:
    """Return the call that the main thread sits in, if it surely does.

    Not collective. A call of MPI, or of allraise where that waits for other ranks. None
    also where it cannot be known: no source, or MPI called from a C library.
    """
    frame, thread = main_frame(), threading.main_thread().ident or 0
    if frame is None:
        return None
    opened = OPEN.get(thread, [None])[0]
    try:
        if not _is_agreeing(thread) and not is_own_file(frame.f_code.co_filename):
            return _call_in(frame)
        text = waiting_call(thread, frame)
        if text is None:
            return None
        # No guard ends without all its ranks, whatever this one waits for in it.
        comm = None if opened is None else opened[0].comm
        if comm is None:  # the first guard, which is not open yet
            call = _call_in(frame)
            comm = None if call is None else call.comm
        return Call(text or _guard_text(opened), "allreduce", comm)
    except Exception:  # whatever source and objects there are
        return None


def _guard_text(opened: Opened | None) -> str:
    step = "" if opened is None else step_of(opened[1])
    of = f"the guard of step {step!r}" if step else "a guard"
    return f"{of}, waiting for other ranks"


def _is_agreeing(thread: int) -> bool:
    """Tell whether a thread waits in a block that is compiled: it has no frame."""
    opened = OPEN.get(thread, [None])[0]
    return opened is not None and bool(opened[0].is_waiting)


def waiting_call(thread: int, frame: FrameType) -> str | None:
    """Return the call that a thread waits for other ranks in.

    Not collective.

    Args:
        thread: Its number.
        frame: The innermost one of the thread.

    Returns:
        The call as the program has it; empty if its text is not known; None if the
        thread is not known to wait.
    """
    try:
        if _is_agreeing(thread):
            return _use_of_ours(frame)
        if not is_own_file(frame.f_code.co_filename):
            call = _call_in(frame)
            waits = call is not None and not call.name.lower().startswith(_NEVER_WAIT)
            return call.text if call is not None and waits else None
        if Path(frame.f_code.co_filename).stem in _BUSY:
            return None
        outer: FrameType | None = frame
        while outer is not None and is_own_file(outer.f_code.co_filename):
            outer = outer.f_back
        return _use_of_ours(outer) if outer is not None else ""
    except Exception:  # whatever source and objects there are
        return None


def never_returns(call: Call, left: RankSet, world: MPI.Intracomm) -> bool:
    """Tell whether a call is a collective with a rank that has left.

    Not collective.

    Args:
        call: What a thread of this process sits in.
        left: The ranks that have reached the end of the program.
        world: Of all ranks.
    """
    if call.comm is None or call.name.lower() not in COLLECTIVES:
        return False
    from mpi4py import MPI

    if call.comm == world:
        return bool(left)
    if MPI.Query_thread() != MPI.THREAD_MULTIPLE or call.comm.Is_inter():
        return False
    group, everybody = call.comm.Get_group(), world.Get_group()
    try:
        ranks = MPI.Group.Translate_ranks(group, None, everybody)
    finally:
        group.Free()
        everybody.Free()
    return any(rank in left for rank in ranks)
