"""Pairs of exception and stack summary, as torch makes and knows them."""

from __future__ import annotations

import pickle
import traceback
from collections import namedtuple

import pytest

from allraise import WrappedException, dcp, is_wrapped_exception, wrap_exception


def failed(exc):
    try:
        raise exc
    except BaseException as caught:
        return caught


def test_a_pair_is_the_exception_itself_and_its_stack():
    exc = failed(ValueError("a"))
    pair = wrap_exception(exc)
    assert type(pair) is tuple
    assert pair[0] is exc
    assert type(pair[1]) is traceback.StackSummary
    assert pair[1] == traceback.extract_tb(exc.__traceback__)


def test_an_exception_that_was_never_raised_has_an_empty_stack():
    assert wrap_exception(ValueError("a"))[1] == []


@pytest.mark.parametrize("given", [None, "text", ValueError, (ValueError(), [])])
def test_what_is_no_exception_is_refused(given):
    with pytest.raises(TypeError, match=r"wrap_exception\(\) takes an exception, got"):
        wrap_exception(given)


def test_the_stack_pickles_with_its_source_text():
    _, summary = wrap_exception(failed(ValueError("a")))
    again = pickle.loads(pickle.dumps(summary))
    assert again.format() == summary.format()
    assert "raise exc" in again.format()[-1]
    assert not any(getattr(frame, "_code", None) for frame in summary)


Pair = namedtuple("Pair", "exc summary")  # noqa: PYI024


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (wrap_exception(ValueError()), True),
        (wrap_exception(KeyboardInterrupt()), True),
        (Pair(*wrap_exception(ValueError())), True),
        (list(wrap_exception(ValueError())), False),
        ((ValueError(), []), False),
        ((ValueError(), None), False),
        ((ValueError, traceback.StackSummary()), False),
        ((ValueError(),), False),
        ((*wrap_exception(ValueError()), 1), False),
        (None, False),
        ("ab", False),
        ({}, False),
    ],
)
def test_pairs_are_known(given, expected):
    assert is_wrapped_exception(given) is expected


def test_torchs_names_are_there():
    assert dcp._wrap_exception is wrap_exception
    assert dcp._is_wrapped_exception is is_wrapped_exception
    assert dcp.WRAPPED_EXCEPTION is WrappedException
    assert WrappedException == tuple[BaseException, traceback.StackSummary]
    assert dcp.CheckpointException.__name__ == "CheckpointException"
    assert callable(dcp._DistWrapper)
    assert all(hasattr(dcp, name) for name in dcp.__all__)


def test_failures_are_found_among_results_by_position():
    one, other = wrap_exception(ValueError()), wrap_exception(KeyError())
    assert dcp._get_failure_dict([1, one, None, other, []]) == {1: one, 3: other}
    assert list(dcp._get_failure_dict([one, 0, other])) == [0, 2]
    assert dcp._get_failure_dict([]) == {}


def test_without_distribution_torchs_wrapper_starts_no_communication():
    made = dcp._DistWrapper(None, use_dist=False, coordinator_rank=0)
    assert made.get_world_size() == 1
    assert (made.rank, made.get_rank(), made.is_coordinator) == (0, 0, True)
    assert made.all_gather("read", lambda: 5) == [5]
    with pytest.raises(dcp.CheckpointException) as caught:
        made.broadcast("plan", lambda: 1 / 0)
    assert type(caught.value.failures[0][0]) is ZeroDivisionError
