"""Waiting that gives the core away, over looks that find nothing at first."""

import pytest

from allraise import polling


class Looks:
    """Finds nothing some times, then something, and counts what is done meanwhile."""

    def __init__(self, n_vain, nothing, found):
        self.results = [nothing] * n_vain + [found]
        self.n_looks = self.n_yields = 0

    def __call__(self, requests, _status):
        assert requests == ["request"]
        self.n_looks += 1
        return self.results.pop(0)

    def yield_(self):
        self.n_yields += 1


@pytest.mark.parametrize("n_vain", [0, 1, polling.N_LOOKS - 1, polling.N_LOOKS, 50])
@pytest.mark.parametrize(
    ("name", "results", "returned"),
    [
        ("Waitany", [(-1, False), (3, True)], 3),
        ("waitany", [(-1, False, None), (3, True, "object")], (3, "object")),
        ("Waitsome", [[], [0, 2]], [0, 2]),
        ("Waitsome", [[], None], None),  # nothing to wait for
        ("waitsome", [([], []), ([1], ["object"])], ([1], ["object"])),
        ("waitsome", [([], []), (None, None)], (None, None)),
    ],
)
def test_waiting_looks_and_then_gives_the_core_away_between_looks(
    monkeypatch, n_vain, name, results, returned
):
    look = Looks(n_vain, *results)
    monkeypatch.setattr(polling.os, "sched_yield", look.yield_)
    if name == "Waitany":
        wait = polling._yielding_any(look)
    else:
        wait = polling._yielding(look, *polling._LOOKS[name][1:])
    assert wait(["request"], None) == returned
    assert look.n_looks == n_vain + 1
    assert look.n_yields == max(0, n_vain + 1 - polling.N_LOOKS)


def test_an_object_is_received_when_it_is_there(monkeypatch):
    class Comm:
        def __init__(self):
            self.n_looks = 0

        def improbe(self, source, tag):
            assert (source, tag) == (1, 2)
            self.n_looks += 1
            return self if self.n_looks == 5 else None

        def recv(self, *args):
            assert args == ()
            return "object"

    monkeypatch.setattr(polling, "_yields", lambda: False)
    assert polling.receive(Comm(), 1, 2) == "object"


def test_without_mpi_in_sight_a_communicator_waits_by_itself():
    class Comm:
        def recv(self, *args):
            return args

    assert polling.receive(Comm(), 1, 2) == (None, 1, 2)
