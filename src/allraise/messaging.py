"""Point-to-point operations of an interruptible communicator.

Owns what `interruptible` puts into its classes where messages, not a revoke, wake:
a blocking operation is the nonblocking one, and a wait for it or for a failure. How a
message is looked for is the business of `probing`.
"""

# ruff: noqa: D102, N802, PLR0917 - mpi4py's methods, with its names and meaning

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.lane import LEAKED
from allraise.tally import TO_RECEIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.tally import Tally


class Messaging:
    """Written out methods, copied into the classes of `interruptible`."""

    _begin: Callable[[str], Any]
    gate: Callable[[Any, str], BaseException | None]
    plain: Any
    tally: Tally
    _any: Callable[[int | None, int | None], tuple[int, int]]
    _until: Callable[..., Any]
    _mpi: Any

    def Barrier(self) -> None:
        """Wait for all ranks. Collective: a gate, nothing behind it."""
        late = self.gate(self, "Barrier")
        if late is not None:
            raise late

    barrier = Barrier

    # -- sending ---------------------------------------------------------------------

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        self._send("Send", self.plain.Isend, buf, dest, tag)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        self._send("Ssend", self.plain.Issend, buf, dest, tag)

    def Rsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        self._send("Rsend", self.plain.Irsend, buf, dest, tag)

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._send("send", self.plain.isend, obj, dest, tag)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._send("ssend", self.plain.issend, obj, dest, tag)

    def _send(
        self, operation: str, start: Callable[..., Any], data: Any, dest: int, tag: int
    ) -> None:
        channel, tally = self._begin(operation), self.tally
        try:
            request = start(data, dest, tag)
            tally.sent[int(dest)] += 1  # while it is under way
        except BaseException:
            tally.note_sent(dest)
            raise
        channel.wait(request, operation)

    # Buffered ones wait for nobody, but the message may outlive a region that fails.

    def Bsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        self._begin("Bsend")
        self.tally.note_sent(dest)
        self.plain.Bsend(buf, dest, tag)

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._begin("bsend")
        self.tally.note_sent(dest)
        self.plain.bsend(obj, dest, tag)

    # -- receiving -------------------------------------------------------------------

    def Recv(
        self,
        buf: Any,
        source: int | None = None,
        tag: int | None = None,
        status: Any = None,
    ) -> None:
        channel, tally = self._begin("Recv"), self.tally
        source, tag = self._any(source, tag)
        request = self.plain.Irecv(buf, source, tag)
        channel.wait(request, "Recv", status, (tally, TO_RECEIVE, source))
        tally.received[int(source)] += 1

    def recv(
        self,
        buf: Any = None,  # noqa: ARG002 - as large as the message, whatever is given
        source: int | None = None,
        tag: int | None = None,
        status: Any = None,
    ) -> Any:
        return self._receive_object("recv", source, tag, status)

    def Sendrecv(
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int | None = None,
        recvtag: int | None = None,
        status: Any = None,
    ) -> None:
        channel, tally, plain = self._begin("Sendrecv"), self.tally, self.plain
        if source is None or recvtag is None:
            source, recvtag = self._any(source, recvtag)
        # Not Isendrecv: it came with MPI 4, which Open MPI 4 is not.
        receive, send = plain.Irecv(recvbuf, source, recvtag), None
        is_done = channel.is_done
        try:
            send = plain.Isend(sendbuf, dest, sendtag)
            # While they are under way. To call `int` takes longer than to look.
            tally.sent[dest if type(dest) is int else int(dest)] += 1
            if status is not None or not is_done(receive):
                awaited = tally, TO_RECEIVE, source
                channel.wait(receive, "Sendrecv", status, awaited)
            tally.received[source if type(source) is int else int(source)] += 1
            if not is_done(send):
                channel.wait(send, "Sendrecv")
        except BaseException:
            tally.note_sent(dest)
            LEAKED.extend((receive, send))
            raise

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int | None = None,
        recvtag: int | None = None,
        status: Any = None,
    ) -> None:
        self.Sendrecv(_copied(buf), dest, sendtag, buf, source, recvtag, status)

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,  # noqa: ARG002 - as in recv
        source: int | None = None,
        recvtag: int | None = None,
        status: Any = None,
    ) -> Any:
        channel, tally = self._begin("sendrecv"), self.tally
        tally.note_sent(dest)
        send = self.plain.isend(sendobj, dest, sendtag)
        try:
            received = self._receive_object("sendrecv", source, recvtag, status)
            channel.wait(send, "sendrecv")
        except BaseException:
            LEAKED.append(send)
            raise
        return received

    def _receive_object(
        self, operation: str, source: int | None, tag: int | None, status: Any
    ) -> Any:
        channel = self._begin(operation)
        mpi = self._mpi
        source, tag = self._any(source, tag)
        if source == mpi.PROC_NULL:
            return self.plain.recv(None, source, tag, status)
        status = mpi.Status() if status is None else status
        probe = self.plain.Improbe
        message = self._until(probe, channel, operation, source, tag, status)
        self.tally.received[status.source] += 1
        into = bytearray(status.Get_count(mpi.BYTE))
        channel.wait(message.Irecv([into, mpi.BYTE]), operation)
        return mpi.pickle.loads(into)


def _copied(buffer: Any) -> Any:
    """Return a buffer, as mpi4py takes it, with its memory copied."""
    from mpi4py import MPI

    obj, *rest = buffer if isinstance(buffer, (list, tuple)) else (buffer,)
    view = memoryview(obj)
    # As it lies in memory, rows first or columns first: mpi4py sends it so.
    copy = view.tobytes("A")
    if not rest or not any(isinstance(x, (MPI.Datatype, str)) for x in rest):
        rest.append(MPI.Datatype.fromcode(view.format))
    return [copy, *rest]
