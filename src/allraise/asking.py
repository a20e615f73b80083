"""Questions and news to the helper threads of other ranks, by TCP.

Owns how many processes are asked at a time, and for how long. A process whose
interpreter is held takes a connection, for the kernel does that, and never answers;
so all are asked side by side, without a thread for each.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allraise.census import Address, Message

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024

# Asked at a time: each takes a descriptor, of which a process may have 1024.
MAX_ASKED_AT_ONCE: Final = 512


class _Talk:
    """One question under way to one process."""

    def __init__(
        self,
        rank: int,
        address: Address,
        data: bytes,
        limit: float,
        *,
        is_news: bool = False,
    ) -> None:
        self.rank = rank
        self.limit = limit
        self._is_news = is_news
        networks = address.networks
        if address.host == os.uname().nodename:
            networks = ("127.0.0.1", *networks)
        self._places = [(network, address.port) for network in networks]
        self._data = data
        self._rest = memoryview(data)
        self._found = bytearray()
        self._socket: socket.socket | None = None

    def start(self) -> int:
        """Connect to the next of its networks.

        Returns:
            The descriptor to wait for; -1 if there is no network left.

        Raises:
            OSError: This process has no descriptor left.
        """
        self.close()
        while self._places:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setblocking(False)  # noqa: FBT003 it takes no name
            error = self._socket.connect_ex(self._places.pop(0))
            if error in (0, errno.EINPROGRESS):
                self._rest = memoryview(self._data)
                self._found.clear()
                return self._socket.fileno()
            self.close()
        return -1

    def go_on(self) -> bool:
        """Do what can be done without waiting; return whether it is over.

        Raises:
            OSError: Nobody is there.
            ValueError: The answer is too long.
        """
        if self._socket is None:
            return True
        with contextlib.suppress(BlockingIOError):
            if self._rest:
                self._rest = self._rest[self._socket.send(self._rest) :]
                if self._rest:
                    return False
                self._socket.shutdown(socket.SHUT_WR)
                if self._is_news:
                    self._places.clear()  # the kernel there has it: that is enough
                return self._is_news
            chunk = self._socket.recv(65536)
            self._found += chunk
            if len(self._found) > MAX_ANSWER_BYTES:
                msg = f"more than {MAX_ANSWER_BYTES} bytes"
                raise ValueError(msg)
            return not chunk
        return False

    @property
    def events(self) -> int:
        """What to wait for."""
        return select.POLLOUT if self._rest else select.POLLIN

    def answer(self) -> Message | None:
        """Return what was answered, if anything."""
        with contextlib.suppress(ValueError, RecursionError):
            if self._found:
                answer: Message = json.loads(bytes(self._found))
                return answer
        return None

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Talks:
    """The questions under way."""

    def __init__(self) -> None:
        self.found: dict[int, Message] = {}
        self._talks: dict[int, _Talk] = {}
        self._poll = select.poll()

    def __len__(self) -> int:
        return len(self._talks)

    def begin(self, talk: _Talk) -> None:
        """Ask by the next network, if there is one.

        Raises:
            OSError: This process has no descriptor left.
        """
        descriptor = talk.start()
        if descriptor >= 0:
            self._talks[descriptor] = talk
            self._poll.register(descriptor, talk.events)

    def wait(self) -> None:
        """Go on with those that can, and leave those whose time is over."""
        # All have the same time, so the first is over first.
        limit = min((talk.limit for talk in self._talks.values()), default=0.0)
        rest = max(limit - time.monotonic(), 0.0)
        for descriptor, _ in self._poll.poll(rest * 1000 + 1):
            self._go_on(descriptor)
        now = time.monotonic()
        for descriptor in [d for d, talk in self._talks.items() if talk.limit <= now]:
            self._drop(descriptor).close()

    def _go_on(self, descriptor: int) -> None:
        talk = self._talks[descriptor]
        try:
            is_over = talk.go_on()
        except (OSError, ValueError):
            is_over = True
        if not is_over:
            self._poll.modify(descriptor, talk.events)
            return
        self._drop(descriptor)
        answer = talk.answer()
        if answer is not None:
            self.found[talk.rank] = answer
            talk.close()
        else:  # by another network
            with contextlib.suppress(OSError):
                self.begin(talk)

    def _drop(self, descriptor: int) -> _Talk:
        self._poll.unregister(descriptor)
        return self._talks.pop(descriptor)


def ask(
    address: Address, token: str, question: Message, limit_s: float
) -> Message | None:
    """Ask a process.

    Not collective.

    Returns:
        Its answer; None if there is none in time.
    """
    return ask_many([(0, address)], token, question, limit_s).get(0)


def ask_many(
    addresses: Iterable[tuple[int, Address]],
    token: str,
    question: Message,
    limit_s: float,
) -> dict[int, Message]:
    """Ask many processes at a time.

    Not collective. Takes as long for many that are silent as for one, up to as
    many as are asked at once.

    Returns:
        The answers of those that answered, by rank.
    """
    return _talk(addresses, token, question, limit_s)


def tell_many(
    addresses: Iterable[tuple[int, Address]], token: str, news: Message, limit_s: float
) -> None:
    """Tell many processes something at a time, and wait for no answer.

    Not collective.
    """
    _talk(addresses, token, news, limit_s, is_news=True)


def _talk(
    addresses: Iterable[tuple[int, Address]],
    token: str,
    message: Message,
    limit_s: float,
    *,
    is_news: bool = False,
) -> dict[int, Message]:
    data = token.encode("ascii") + json.dumps(message).encode()
    waiting = deque(addresses)
    talks = _Talks()
    while waiting or talks:
        while waiting and len(talks) < MAX_ASKED_AT_ONCE:
            try:
                limit = time.monotonic() + limit_s
                talks.begin(_Talk(*waiting[0], data, limit, is_news=is_news))
            except OSError:
                if talks:  # whose descriptors are free soon
                    break
            waiting.popleft()
        if talks:
            talks.wait()
    return talks.found
