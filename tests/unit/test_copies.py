"""What a pickle and a copy of a `CheckpointException` keep, and how it is subclassed."""

from __future__ import annotations

import copy
import inspect
import pickle
import threading

import pytest

from allraise import CheckpointError, CheckpointException, RemoteError, wrap_exception
from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.exceptions import Agreed
from allraise.summary import read_summary, summarise
from unit.zoo import ZOO


def failed(exc):
    try:
        raise exc
    except BaseException as caught:
        return wrap_exception(caught)


def roundtrip(made):
    return pickle.loads(pickle.dumps(made))


def gathered(exc, *, live=None):
    """Return what rank 2 raises where it has failed."""
    made = CheckpointException.from_bundle(
        "write",
        Bundle.of(2, capture(exc)),
        ordinary=True,
        live=live,
        agreed=Agreed(1, object(), 2),
    )
    made.__cause__ = live
    return made


def partial():
    """Return what a rank raises that has not failed, and lacks the whole report."""
    where = "rank 0 of 4 has the whole report"
    told = summarise(Bundle.of(3, capture(ValueError("boom"))))
    summary = read_summary(told, where)
    made = CheckpointException.from_bundle("write", summary, ordinary=True)
    made.locate(4, where)
    return made


def by_hand():
    pair = wrap_exception(ZOO["local_class"].catch())
    return CheckpointException("write", {0: pair, 1: failed(KeyError("k"))})


WAYS = [roundtrip, copy.copy, copy.deepcopy]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("reads", [repr, lambda made: made.failures])
@pytest.mark.parametrize("make", [partial, by_hand])
def test_the_text_stays_the_same_however_often_it_is_copied(make, reads, how):
    made = make()
    text = str(made)
    for _ in range(3):
        reads(made)
        made = how(made)
        assert str(made) == text


@pytest.mark.parametrize("how", WAYS)
def test_a_summary_of_none_stays_none(how):
    made = CheckpointException("x", {0: (ValueError("a"), None), 1: failed(OSError())})
    for _ in range(3):
        made = how(made)
    assert made.failures[0][1] is None
    assert made.failures[1][1]


class PlainError(CheckpointException):
    """One that changes nothing."""


class OwnError(CheckpointError):
    """One with a constructor and attributes of its own."""

    __slots__ = ("place",)

    def __init__(self, path, *, exc=None):
        super().__init__("save", {0: wrap_exception(exc or OSError(path))})
        self.path = path
        self.place = "in a slot"


@pytest.mark.parametrize("how", WAYS)
def test_a_subclass_stays_what_it_is(how):
    made = PlainError("x", {0: failed(ValueError("a"))})
    again = how(made)
    assert type(again) is PlainError
    assert (again.step, again.ranks, str(again)) == ("x", (0,), str(made))


@pytest.mark.parametrize("how", WAYS)
def test_a_subclass_may_have_a_constructor_of_its_own(how):
    again = how(OwnError("a.bin"))
    assert type(again) is OwnError
    assert (again.path, again.place) == ("a.bin", "in a slot")
    assert (again.step, again.ranks) == ("save", (0,))


def test_a_subclass_is_checked_as_well():
    with pytest.raises(TypeError, match="OwnError takes failures that are Exceptions"):
        OwnError("a", exc=KeyboardInterrupt())
    with pytest.raises(TypeError, match="failures must map ranks"):
        PlainError("x", [1])


@pytest.mark.parametrize("cls", [CheckpointException, CheckpointError, PlainError])
def test_the_signature_is_that_of_torchs(cls):
    assert list(inspect.signature(cls).parameters) == ["msg", "failures"]
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        cls()
    with pytest.raises(TypeError, match="takes 3 positional arguments but 4"):
        cls("x", {}, 1)
    assert cls(failures={}, msg="x").args == ("x", {})


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("make", [by_hand, partial, lambda: gathered(ValueError("a"))])
def test_attributes_and_notes_are_kept(make, how):
    made = make()
    made.attempt = {"number": 3}
    made.add_note("tried thrice")
    for _ in range(2):
        made = how(made)
        assert made.attempt == {"number": 3}
        assert made.__notes__ == ["tried thrice"]


def test_an_attribute_that_does_not_pickle_is_its_repr():
    made = by_hand()
    made.lock = threading.Lock()
    assert roundtrip(made).lock.startswith("<unlocked ")
    assert copy.copy(made).lock is made.lock
    assert copy.deepcopy(made).lock is made.lock


def test_an_attribute_may_lead_back_to_the_exception():
    made = by_hand()
    made.seen = [made]
    again = roundtrip(made)
    assert again.seen[0] is again


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_shares_the_live_exceptions(how):
    made = by_hand()
    again = how(made)
    assert again is not made
    assert again.failures == made.failures
    assert all(again.failures[r][0] is made.failures[r][0] for r in made.ranks)

    live = ZOO["local_class"].catch()
    again = how(gathered(live, live=live))
    assert again.failures[2][0] is live
    assert again.__cause__ is live
    assert again.own_exception() is live


def test_a_deep_copy_has_attributes_of_its_own():
    made = by_hand()
    made.attempts = [1]
    made.itself = made
    again = copy.deepcopy(made)
    again.attempts.append(2)
    again.add_note("of the copy")
    assert made.attempts == [1]
    assert again.itself is again
    assert not hasattr(made, "__notes__")


@pytest.mark.parametrize("make", [by_hand, partial])
def test_a_change_of_what_failures_returns_changes_nothing(make):
    made = make()
    ranks, args = made.ranks, made.args
    made.failures.clear()
    made.failures[99] = failed(ValueError("b"))
    made.args[1].clear()
    assert (made.ranks, made.args) == (ranks, args)
    assert tuple(made.failures) == ranks
    assert type(made.failures) is dict


class TestExceptionGroup:
    def test_has_this_ranks_own_exception_though_it_cannot_travel(self):
        live = ZOO["local_class"].catch()
        caught = []
        try:
            raise gathered(live, live=live).exception_group()
        except* type(live) as found:
            caught += found.exceptions
        (leaf,) = caught
        assert leaf is not live
        assert leaf.args == live.args
        assert leaf.__traceback__ is not None
        assert leaf.__notes__[-1].startswith("rank 2 on ")
        assert not hasattr(live, "__notes__")

    def test_has_the_very_parts_of_an_exception_that_is_here(self):
        lock = threading.Lock()
        cause = KeyError("cause")
        exc = ValueError("a", lock)
        exc.__cause__ = cause
        made = CheckpointException("x", {0: failed(exc)})
        (leaf,) = made.exception_group().exceptions
        assert leaf.args == ("a", lock)
        assert leaf.__cause__ is cause
        assert leaf.__suppress_context__

    def test_has_a_remote_error_where_it_is_not_here(self):
        live = ZOO["local_class"].catch()
        made = roundtrip(gathered(live, live=live))
        (leaf,) = made.exception_group().exceptions
        assert type(leaf) is RemoteError

    def test_has_a_remote_error_where_a_group_cannot_hold_it(self):
        """It asks what is no Exception for its ``__class__``."""
        answers = property(lambda _: pytest.fail("asked"))
        exc = type("OddExit", (BaseException,), {"__class__": answers})("a")
        made = CheckpointException("x", {0: (exc, None)})
        (leaf,) = made.exception_group().exceptions
        assert type(leaf) is RemoteError
        assert str(leaf).endswith("OddExit: a")
