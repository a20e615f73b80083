"""Side by side with torch's own exception, where torch is installed."""

from __future__ import annotations

import pickle

import pytest

import allraise
from allraise import dcp
from unit.golden.cases import failures_by_name

api = pytest.importorskip(
    "torch.distributed.checkpoint.api",
    reason="PyTorch is not installed: pip install torch==2.13.0 runs these",
)
utils = pytest.importorskip("torch.distributed.checkpoint.utils")

NAMES = sorted(failures_by_name(allraise.wrap_exception))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrap", [api._wrap_exception, dcp._wrap_exception])
def test_the_text_is_the_same(name, wrap):
    message, failures = failures_by_name(wrap)[name]
    theirs = api.CheckpointException(message, failures)
    ours = allraise.CheckpointException(message, failures)
    assert str(ours) == str(theirs)
    assert ours.args == theirs.args
    assert ours.failures == theirs.failures
    assert isinstance(ours, BaseException)


def test_each_takes_the_others_pairs():
    exc = ValueError("x")
    assert api._is_wrapped_exception(dcp._wrap_exception(exc))
    assert dcp._is_wrapped_exception(api._wrap_exception(exc))
    mixed = [1, dcp._wrap_exception(exc), None, api._wrap_exception(exc)]
    assert dcp._get_failure_dict(mixed) == utils._get_failure_dict(mixed)


@pytest.mark.parametrize(
    "given", [None, (), (ValueError(), []), [ValueError(), None], (1, 2), "ab"]
)
def test_both_refuse_the_same_pairs(given):
    assert api._is_wrapped_exception(given) == dcp._is_wrapped_exception(given)


def test_both_print_the_same_after_a_pickle():
    # Theirs pickles only what is found by its name, and loads only what its
    # constructor takes.
    message, failures = "write", {}
    for rank, exc in ((0, OSError(28, "full", "a.bin")), (3, KeyError("layer.7"))):
        try:
            raise exc
        except (OSError, KeyError) as caught:
            failures[rank] = dcp._wrap_exception(caught)
    theirs = pickle.loads(pickle.dumps(api.CheckpointException(message, failures)))
    ours = pickle.loads(pickle.dumps(allraise.CheckpointException(message, failures)))
    assert str(ours) == str(theirs)
