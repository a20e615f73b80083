"""Point-to-point operations of an interruptible communicator.

Owns what `interruptible` puts into its classes where messages, not a revoke, wake:
a blocking operation is the nonblocking one, and a wait for it or for a failure. How a
message is looked for is the business of `probing`.
"""

# ruff: noqa: D102, N802, PLR0917 - mpi4py's methods, with its names and meaning

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allraise.lane import LEAKED
from allraise.tally import TO_RECEIVE, TO_SEND

if TYPE_CHECKING:
    from collections.abc import Callable

    from allraise.tally import Awaited, Tally


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

    def _count(self, dest: int, tag: int) -> Awaited:
        """Count a message that is about to be sent; return what is awaited then."""
        tally, key = self.tally, (dest, tag)
        number = tally.sent[key] + 1
        tally.sent[key] = number
        return tally, TO_SEND, dest, number

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:
        channel, awaited = self._begin("Send"), self._count(dest, tag)
        channel.wait(self.plain.Isend(buf, dest, tag), "Send", None, awaited)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:
        channel, awaited = self._begin("Ssend"), self._count(dest, tag)
        channel.wait(self.plain.Issend(buf, dest, tag), "Ssend", None, awaited)

    def Rsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        channel, awaited = self._begin("Rsend"), self._count(dest, tag)
        channel.wait(self.plain.Irsend(buf, dest, tag), "Rsend", None, awaited)

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        channel, awaited = self._begin("send"), self._count(dest, tag)
        channel.wait(self.plain.isend(obj, dest, tag), "send", None, awaited)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        channel, awaited = self._begin("ssend"), self._count(dest, tag)
        channel.wait(self.plain.issend(obj, dest, tag), "ssend", None, awaited)

    # Buffered ones wait for nobody, but the message may outlive a region that fails.

    def Bsend(self, buf: Any, dest: int, tag: int = 0) -> None:
        self._begin("Bsend")
        self._count(dest, tag)
        self.plain.Bsend(buf, dest, tag)

    def bsend(self, obj: Any, dest: int, tag: int = 0) -> None:
        self._begin("bsend")
        self._count(dest, tag)
        self.plain.bsend(obj, dest, tag)

    # -- receiving -------------------------------------------------------------------

    def Recv(
        self,
        buf: Any,
        source: int | None = None,
        tag: int | None = None,
        status: Any = None,
    ) -> None:
        channel = self._begin("Recv")
        source, tag = self._any(source, tag)
        tally = self.tally
        tally.asked[source] += 1
        request = self.plain.Irecv(buf, source, tag)
        if source < 0 and status is None:
            status = self._mpi.Status()  # to know from whom it came
        channel.wait(request, "Recv", status, (tally, TO_RECEIVE, source, 0))
        tally.received[source if source >= 0 else status.source] += 1

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
        channel = self._begin("Sendrecv")
        if source is None or recvtag is None:
            source, recvtag = self._any(source, recvtag)
        # Not Isendrecv: it came with MPI 4, which Open MPI 4 is not.
        self.tally.asked[source] += 1
        receive = self.plain.Irecv(recvbuf, source, recvtag)
        send = (sendbuf, dest, sendtag)
        self._send_and(channel, receive, source, send, "Sendrecv", status)

    def Sendrecv_replace(
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int | None = None,
        recvtag: int | None = None,
        status: Any = None,
    ) -> None:
        channel = self._begin("Sendrecv_replace")
        source, recvtag = self._any(source, recvtag)
        out = _copied(buf)
        self.tally.asked[source] += 1
        receive = self.plain.Irecv(buf, source, recvtag)
        send = (out, dest, sendtag)
        self._send_and(channel, receive, source, send, "Sendrecv_replace", status)

    def _send_and(
        self,
        channel: Any,
        receive: Any,
        source: int,
        send: Any,
        operation: str,
        status: Any,
    ) -> None:
        requests = [receive]
        is_done, tally = channel.is_done, self.tally
        if source < 0 and status is None:
            status = self._mpi.Status()  # to know from whom it came
        try:
            awaited = self._count(*send[1:])
            requests.append(self.plain.Isend(*send))
            if status is not None or not is_done(receive):
                channel.wait(receive, operation, status, (tally, TO_RECEIVE, source, 0))
            tally.received[source if source >= 0 else status.source] += 1
            if not is_done(requests[1]):
                channel.wait(requests[1], operation, None, awaited)
        except BaseException:
            LEAKED.extend(requests)
            raise

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
        channel, awaited = self._begin("sendrecv"), self._count(dest, sendtag)
        send = self.plain.isend(sendobj, dest, sendtag)
        try:
            received = self._receive_object("sendrecv", source, recvtag, status)
            channel.wait(send, "sendrecv", None, awaited)
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
