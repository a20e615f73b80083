"""Answers of a helper thread to those of other ranks, by TCP.

Owns one listening socket a process, and the form of a question: one short
connection, a JSON object there, one back (`asking`). Knows nothing of what they say,
nor of MPI, which a helper thread may not call below ``THREAD_MULTIPLE``; this works
at every level, across nodes, and needs no file system that all ranks see.

A question begins with the token that the ranks of a communicator share, made
anew in each job; who does not know it is not listened to, and learns nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Message = dict[str, Any]

TOKEN_CHARS: Final = 32
MAX_QUESTION_BYTES: Final = 64 * 1024
BACKLOG: Final = 4096  # thousands of ranks pass one deadline at the same time
MAX_NETWORKS: Final = 8

# Who has connected has its question ready.
READ_S: Final = 4.0

_SIOCGIFADDR: Final = 0x8915


class Address(NamedTuple):
    """Where a process listens, and where its stacks are if it cannot answer.

    ``main`` is the identifier of its main thread, ``stall`` the number of an open
    file of the process (see `stall`), or -1.
    """

    host: str
    pid: int
    networks: tuple[str, ...]
    port: int
    main: int
    stall: int


def local_networks() -> tuple[str, ...]:
    """Return this host's IPv4 addresses, that of the default route first.

    Without a name server, which may take its time where there is none.
    """
    import fcntl

    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):  # sends nothing
            probe.connect(("192.0.2.1", 9))
            found.append(probe.getsockname()[0])
        if sys.platform == "linux":
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    request = struct.pack("256s", name.encode()[:15])
                    data = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                    found.append(socket.inet_ntoa(data[20:24]))
    distinct = dict.fromkeys(n for n in found if not n.startswith(("127.", "0.")))
    return tuple(distinct)[:MAX_NETWORKS]


class Door:
    """The listening socket of this process.

    Not collective.

    Args:
        answer: Called with a token and a question; returns the answer, or None
            if the token is unknown.

    Raises:
        OSError: There is no socket to be had.
    """

    def __init__(self, answer: Callable[[str, Message], Message | None]) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind(("0.0.0.0", 0))  # noqa: S104 the other ranks are elsewhere
        self._socket.listen(BACKLOG)
        self._socket.settimeout(0)

    def fileno(self) -> int:
        """Return the descriptor that is readable when somebody asks."""
        return self._socket.fileno()

    def address(self, stall: int) -> Address:
        """Return what the others have to know."""
        return Address(
            os.uname().nodename,
            os.getpid(),
            local_networks(),
            int(self._socket.getsockname()[1]),
            threading.main_thread().ident or 0,
            stall,
        )

    def serve(self) -> None:
        """Answer who is waiting; for each at most a few seconds."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            with connection, contextlib.suppress(OSError, ValueError, RecursionError):
                limit = time.monotonic() + READ_S
                data = _read(connection, MAX_QUESTION_BYTES, limit)
                token, question = data[:TOKEN_CHARS], data[TOKEN_CHARS:]
                found = self._answer(token.decode("ascii"), json.loads(question))
                if found is not None:
                    connection.settimeout(READ_S)
                    connection.sendall(json.dumps(found).encode())


def _read(connection: socket.socket, limit_bytes: int, limit: float) -> bytes:
    """Read until the other side has no more to say."""
    chunks: list[bytes] = []
    n_bytes = 0
    while True:
        connection.settimeout(max(limit - time.monotonic(), 0.001))
        chunk = connection.recv(65536)
        n_bytes += len(chunk)
        if n_bytes > limit_bytes:
            msg = f"more than {limit_bytes} bytes"
            raise ValueError(msg)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
