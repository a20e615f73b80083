"""Where the threads of this process stand, without asking them.

Owns how a live stack becomes a record, and how it is known that a thread sits in
an MPI call. Everything here works while the main thread is blocked in C code
that has released the GIL, as mpi4py does, and runs no code of the user.
"""

from __future__ import annotations

import ast
import ctypes
import linecache
import sys
import threading
import time
from inspect import getattr_static
from itertools import islice
from pathlib import Path
from traceback import extract_stack
from types import BuiltinMethodType, MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from allraise.capture import origin_here
from allraise.frames import frames_from_summary
from allraise.own import is_own_file, own_end_dropped
from allraise.record import Link, Record

if TYPE_CHECKING:
    from types import FrameType

    from mpi4py import MPI

    from allraise.ranks import RankSet
    from allraise.record import Frame

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

_LAUNCHERS: Final = ("<frozen runpy>", "runpy.py", "mpi4py/run.py")


def program_frames(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out what lies between Python and the user's program, and below that.

    Not what the user's functions call, but what allraise does for them.
    """
    return own_end_dropped(without_launcher(frames))


def without_launcher(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out what lies between Python and the user's program.

    And the handler of SIGTERM, in which a main thread that runs Python waits.
    """
    start, end = 0, len(frames)
    for position, frame in enumerate(frames):
        if not is_own_file(frame.filename):
            continue
        if frame.name == "on_sigterm":
            end = position
            break
        if "launcher" in frame.filename:
            start = position + 1
    while start < end and frames[start].filename.endswith(_LAUNCHERS):
        start += 1
    return frames[start:end]


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


def main_frame() -> FrameType | None:
    """Return the innermost frame of the main thread."""
    ident = threading.main_thread().ident
    return sys._current_frames().get(ident or 0)  # noqa: SLF001 the documented way


def call_in_progress() -> Call | None:
    """Return the MPI call that the main thread sits in, if it surely does.

    Not collective. None also where it cannot be known: no source, or MPI called
    from a C library.
    """
    frame = main_frame()
    try:
        return _call_in(frame) if frame is not None else None
    except Exception:  # whatever source and objects there are
        return None


def waiting_call(frame: FrameType) -> str | None:
    """Return the call that a thread waits for other ranks in.

    Not collective.

    Args:
        frame: The innermost one of the thread.

    Returns:
        The call as the program has it; empty if its text is not known; None if the
        thread is not known to wait.
    """
    try:
        if not is_own_file(frame.f_code.co_filename):
            call = _call_in(frame)
            waits = call is not None and not call.name.lower().startswith(_NEVER_WAIT)
            return call.text if call is not None and waits else None
        if Path(frame.f_code.co_filename).stem in _BUSY:
            return None
        outer: FrameType | None = frame
        while outer is not None and is_own_file(outer.f_code.co_filename):
            outer = outer.f_back
        text = _text_of_call(outer) if outer is not None else ""
        # Not the block of a whole `with`.
        return " ".join(text.split()) if text.endswith(")") else ""
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


def main_stack() -> tuple[Frame, ...]:
    """Return the stack of the main thread, the program's part of it."""
    frame = main_frame()
    if frame is None:
        return ()
    return program_frames(frames_from_summary(extract_stack(frame)))


def stack_record(kind: str, type_name: str, message: str = "") -> Record:
    """Take down where the main thread stands.

    Not collective. Never raises.
    """
    try:
        frames = main_stack()
    except Exception:
        frames = ()
    line = f"{type_name}: {message}\n" if message else f"{type_name}\n"
    link = Link(type_name, message, (line,), (), frames)
    return Record((link,), origin=origin_here(), kind=kind)


class Pulse:
    """Tells whether the main thread has run any Python since it was asked.

    Not collective. A thread that is blocked stands at one instruction, but so
    does, whenever one looks, a loop of short calls. A pending call of the
    interpreter tells them apart: it runs in the main thread between two
    instructions, and not within a call of a C function.
    """

    def __init__(self) -> None:
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._beat)
        self._asked_at: float | None = None

    def _beat(self, _argument: object) -> int:
        self._asked_at = None
        return 0

    def silent_s(self) -> float:
        """Return for how long nothing has run, counted from the first question."""
        asked_at = self._asked_at
        if asked_at is not None:
            return time.monotonic() - asked_at
        self._asked_at = time.monotonic()
        if ctypes.pythonapi.Py_AddPendingCall(self._callback, None):
            self._asked_at = None  # the queue is full; it is asked again
        return 0.0
