"""A gate at which a message comes just as the rank stands at the end of its stack."""

import sys
from functools import partial
from types import SimpleNamespace

import pytest

from allraise.channel import Channel
from allraise.gates import Announced, Gates
from allraise.signals import room_on_the_stack
from allraise.standing import Standing

FARTHEST = 60  # calls that are left

# A request that is not done; looked at by C code, as mpi4py's are.
CLOSED = SimpleNamespace(Test=partial(bool))


class Listen:
    """A request that has received one message."""

    n_received = 1

    def Test(self):
        self.n_received -= 1
        return self.n_received >= 0


class Disturbed(Channel):
    """Hears of something else at its gate, and then the gate opens."""

    def __init__(self):
        self.announced, self.standing = Announced(), Standing()
        self.enclosing, self.failed = (), False
        self.listen = Listen()
        self.places = iter((1, 0))
        self._waitany = lambda watched: next(self.places)
        self.n_read = 0

    def read(self):
        assert descend(10, lambda: True)  # what it takes to read one
        self.n_read += 1


def descend(n, function):
    return function() if n <= 0 else descend(n - 1, function)


def depth_here():
    n, frame = 0, sys._getframe()
    while frame is not None:
        n, frame = n + 1, frame.f_back
    return n


@pytest.fixture(params=[None, TimeoutError("of a signal's handler")], ids=repr)
def late(request):
    return request.param


def test_a_rank_whose_gate_has_begun_waits_there_however_deep_it_stands(late):
    """Else the others would go into a collective that it never comes to."""
    limit = sys.getrecursionlimit()
    n_begun = 0
    for n_left in range(FARTHEST, 0, -1):
        channel, gates, begun = Disturbed(), Gates(1), []

        def pass_gate(channel=channel, gates=gates, begun=begun):
            def wait(_watched):
                if late is not None and channel.places.__length_hint__() == 2:
                    next(channel.places)
                    raise late
                return next(channel.places)

            channel._waitany = wait
            return channel.pass_gate(lambda: begun.append(1) or CLOSED, gates, "op")

        try:
            found = descend(sys.getrecursionlimit() - depth_here() - n_left, pass_gate)
        except RecursionError:
            assert not begun
            assert gates.entered == 0
        else:
            assert begun == [1]
            assert found is late
            assert channel.n_read == 1
            n_begun += 1
        with room_on_the_stack():  # takes back what could not be taken down there
            pass
        assert sys.getrecursionlimit() == limit
    assert 0 < n_begun < FARTHEST
