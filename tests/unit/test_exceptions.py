"""The contract of `CheckpointException`, without MPI."""

from __future__ import annotations

import copy
import os
import pickle
import socket
import threading
import traceback

import pytest

from allraise import (
    CheckpointError,
    CheckpointException,
    RemoteError,
    Report,
    wrap_exception,
)
from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.exceptions import Agreed
from allraise.telling import MAX_BLOCKS
from unit.zoo import ZOO


def failed(exc):
    try:
        raise exc
    except BaseException as caught:
        return wrap_exception(caught)


def gathered(records, ordinary=True):
    bundle = Bundle.merge(Bundle.of(r, record) for r, record in records.items())
    return CheckpointException.from_bundle("write", bundle, ordinary=ordinary)


def test_args_are_the_message_and_the_failures():
    failures = {0: failed(ValueError("a")), 3: failed(KeyError("b"))}
    made = CheckpointException("write", failures)
    assert made.args == ("write", failures)
    assert made.failures == failures
    assert made._failures == failures
    assert (made.step, made.ranks) == ("write", (0, 3))


def test_failures_hold_the_very_exceptions_that_were_given():
    pair = failed(ValueError("a"))
    assert CheckpointException("write", {1: pair}).failures[1][0] is pair[0]


def test_failures_are_in_ascending_order():
    made = CheckpointException("x", {r: failed(ValueError(r)) for r in (7, 0, 3)})
    assert list(made.failures) == [0, 3, 7]
    assert str(made).startswith("CheckpointException ranks:dict_keys([0, 3, 7])\n")


@pytest.mark.parametrize("name", ["failures", "step", "ranks", "args", "report"])
def test_what_it_tells_cannot_be_set(name):
    made = CheckpointException("x", {})
    with pytest.raises(AttributeError):
        setattr(made, name, ())


def test_no_failures_are_legal():
    made = CheckpointException("x", {})
    assert (made.failures, made.ranks) == ({}, ())
    assert str(made) == "CheckpointException ranks:dict_keys([])\n"


def test_a_summary_may_be_none():
    made = CheckpointException("x", {2: (ValueError("a"), None)})
    assert str(made).endswith("(RANK 2)\nValueError: a\n")
    assert made.failures[2][1] is None
    assert pickle.loads(pickle.dumps(made)).failures[2][1] is None


def test_a_summary_may_be_a_list_of_tuples():
    """As `traceback.format_list` takes it, and torch with that."""
    stack = [("a.py", 3, "save", "write(x)"), ("b.py", 4, "write", None)]
    exc = ValueError("a")
    made = CheckpointException("x", {0: (exc, stack)})
    expected = "".join(traceback.format_list(stack)) + "ValueError: a\n"
    assert str(made).partition("(RANK 0)\n")[2] == expected
    assert made.failures == {0: (exc, stack)}
    again = pickle.loads(pickle.dumps(made))
    assert str(again) == str(made)
    assert "write(x)" in made.report.text()
    assert len(made.exception_group().exceptions) == 1


@pytest.mark.parametrize("stack", [[1, 2], [("a.py",)], [None], [("a", "b", "c", 4)]])
def test_a_summary_that_is_none_costs_the_stack_and_not_the_message(stack):
    made = CheckpointException("x", {0: (ValueError("a"), stack)})
    assert str(made).endswith("ValueError: a\n")
    assert "ValueError: a" in made.report.text()
    assert pickle.loads(pickle.dumps(made)).ranks == (0,)


@pytest.mark.parametrize(
    ("exc", "ordinary"),
    [
        (ValueError(), True),
        (ExceptionGroup("g", [ValueError()]), True),
        (KeyboardInterrupt(), False),
        (SystemExit(3), False),
        (GeneratorExit(), False),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), False),
    ],
)
def test_it_is_an_exception_where_all_failures_are(exc, ordinary):
    made = CheckpointException("x", {0: failed(OSError()), 1: failed(exc)})
    assert isinstance(made, CheckpointException)
    assert isinstance(made, Exception) == ordinary
    assert (type(made) is CheckpointError) == ordinary


def test_except_exception_catches_the_ordinary_case():
    with pytest.raises(Exception, match="disk"):
        raise CheckpointException("x", {0: failed(OSError("disk"))})


def test_a_checkpoint_error_refuses_what_is_no_exception():
    with pytest.raises(TypeError, match="construct CheckpointException to hold a Key"):
        CheckpointError("x", {0: failed(KeyboardInterrupt())})


@pytest.mark.parametrize(
    ("message", "failures", "says"),
    [
        (42, {}, "msg must be a str, the step that failed, got int"),
        (None, {}, "msg must be a str, the step that failed, got NoneType"),
        ("x", None, "failures must map ranks to .* pairs, got NoneType"),
        ("x", [1], "failures must map ranks to .* pairs, got list"),
        ("x", {"0": failed(OSError())}, "a key of failures must be a rank, got '0'"),
        ("x", {0: ValueError()}, "of rank 0 must be an .* pair.* got ValueError"),
        ("x", {0: (ValueError(),)}, "of rank 0 must be an .* pair.* got tuple"),
        ("x", {0: ("text", None)}, "of rank 0 must be an .* pair.* got tuple"),
        ("x", {0: (OSError(), "text")}, "of rank 0 must be an .* pair.* got tuple"),
    ],
)
def test_wrong_arguments_are_named(message, failures, says):
    with pytest.raises(TypeError, match=says):
        CheckpointException(message, failures)


def test_the_repr_is_that_of_the_arguments():
    made = CheckpointException("x", {0: (ValueError("a"), None)})
    assert repr(made) == "CheckpointError('x', {0: (ValueError('a'), None)})"


def roundtrip(made, protocol):
    return pickle.loads(pickle.dumps(made, protocol=protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_pickles_whatever_is_inside(protocol):
    failures = {
        r: wrap_exception(ZOO[name].catch())
        for r, name in enumerate(
            (
                "lock_in_the_middle_of_args",
                "local_class",
                "keyword_only",
                "cause",
                "notes",
            )
        )
    }
    made = CheckpointException("write", failures)
    made.add_note("a note of its own")
    again = roundtrip(made, protocol)
    assert (type(again), again.step, again.ranks) == (type(made), "write", made.ranks)
    assert str(again) == str(made)
    assert again.__notes__ == ["a note of its own"]
    types = [type(exc).__name__ for exc, _ in again.failures.values()]
    assert types == [
        "ValueError",
        "RemoteError",
        "KeywordOnlyError",
        "ValueError",
        "ValueError",
    ]
    assert type(again.failures[3][0].__cause__) is KeyError
    assert [s.format() for _, s in again.failures.values()] == [
        s.format() for _, s in made.failures.values()
    ]


def test_it_pickles_a_second_time_as_well():
    made = CheckpointException("x", {1: failed(ValueError("a", 1))})
    twice = roundtrip(roundtrip(made, 5), 5)
    assert str(twice) == str(made)
    assert twice.failures[1][0].args == ("a", 1)


def test_base_exceptions_pickle():
    made = CheckpointException("x", {0: failed(SystemExit(3))})
    again = roundtrip(made, 5)
    assert not isinstance(again, Exception)
    assert again.failures[0][0].code == 3


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_a_copy_tells_the_same(how):
    made = CheckpointException("x", {1: failed(ValueError("a")), 2: failed(OSError(5))})
    again = how(made)
    assert again is not made
    assert (type(again), str(again), again.ranks) == (type(made), str(made), (1, 2))


def test_what_was_gathered_is_rebuilt_when_it_is_asked_for():
    made = gathered({4: capture(failed(KeyError("k"))[0])})
    exc, summary = made.failures[4]
    assert (type(exc), exc.args) == (KeyError, ("k",))
    assert [frame.name for frame in summary] == ["failed"]
    assert made.failures[4][0] is exc
    assert made.failures[4][1] is summary


def test_the_message_is_kept_where_nothing_else_can_be_taken_down(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr("allraise.capture._capture_text", refuse)
    assert str(gathered({0: capture(ValueError("a"))})).endswith("ValueError: a\n")
    by_hand = CheckpointException("x", {0: failed(ValueError("b"))})
    assert str(by_hand).endswith("ValueError: b\n")


def test_alike_failures_are_objects_of_their_own():
    bundle = Bundle()
    record = capture(failed(ValueError("same"))[0])
    bundle.add(Bundle.of(0, record).ranks.from_ranges([(0, 2)]), record)
    made = CheckpointException.from_bundle("x", bundle, ordinary=True)
    assert len({id(exc) for exc, _ in made.failures.values()}) == 3


def test_this_ranks_own_exception_stays_what_it_is():
    live = failed(ValueError("mine"))[0]
    made = CheckpointException.from_bundle(
        "x",
        Bundle.of(2, capture(live)),
        ordinary=True,
        live=live,
        agreed=Agreed(1, object(), 2),
    )
    assert made.failures[2][0] is live
    assert made.own_exception() is live


@pytest.mark.parametrize(
    "hooks",
    [
        {"__len__": lambda _: 0},
        {"__bool__": lambda _: False},
        {"__bool__": lambda _: pytest.fail("asked")},
    ],
    ids=["empty", "false", "fails"],
)
def test_this_ranks_own_exception_is_not_asked_for_its_truth(hooks):
    live = type("OddError", (Exception,), hooks)("mine")
    made = CheckpointException.from_bundle(
        "x",
        Bundle.of(2, capture(live)),
        ordinary=True,
        live=live,
        agreed=Agreed(1, object(), 2),
    )
    assert made.failures[2][0] is live
    assert made.args[1][2][0] is live


def test_it_says_where_the_whole_report_is():
    made = gathered({0: capture(ValueError("a"))})
    made.locate(4, "rank 0 has the whole report")
    assert str(made).endswith("ValueError: a\n[rank 0 has the whole report]\n")
    assert made.is_partial
    assert pickle.loads(pickle.dumps(made)).is_partial


def test_the_report_has_the_step_and_the_ranks():
    made = CheckpointException("write", {3: failed(ValueError("a"))})
    assert type(made.report) is Report
    assert (made.report.step, made.report.ranks) == ("write", (3,))
    assert "ValueError: a" in str(made.report)
    assert made.report is made.report


def test_blocks_beyond_the_cap_are_counted():
    bundle = Bundle()
    record = capture(ValueError("same"))
    bundle.add(Bundle.of(0, record).ranks.from_ranges([(0, MAX_BLOCKS + 9)]), record)
    text = str(CheckpointException.from_bundle("x", bundle, ordinary=True))
    assert text.count("(RANK ") == MAX_BLOCKS
    assert text.endswith("[10 more ranks failed; .report shows all in groups]\n")


def test_a_surrogate_does_not_keep_the_text_from_being_printed():
    made = CheckpointException("x", {0: failed(ValueError("file \udcff"))})
    assert "ValueError: file \\udcff\n" in str(made)


def test_nothing_else_in_the_text_is_changed():
    text = "\x1b[31mred\x07\u202e\0"
    assert text in str(CheckpointException("x", {0: failed(ValueError(text))}))


class TestExceptionGroup:
    def group(self, failures):
        return CheckpointException("write", failures).exception_group()

    def test_has_a_leaf_for_each_rank(self):
        group = self.group({0: failed(ValueError("a")), 3: failed(KeyError("b"))})
        assert type(group) is ExceptionGroup
        assert group.message == "step 'write' on ranks 0,3"
        assert [type(leaf) for leaf in group.exceptions] == [ValueError, KeyError]

    def test_is_caught_by_type(self):
        caught = []
        try:
            raise self.group({0: failed(ValueError("a")), 3: failed(KeyError("b"))})
        except* KeyError as found:
            caught += found.exceptions
        except* ValueError as found:
            caught += found.exceptions
        assert [str(exc) for exc in caught] == ["'b'", "a"]

    def test_a_base_exception_makes_a_base_group(self):
        group = self.group({0: failed(KeyboardInterrupt())})
        assert type(group) is BaseExceptionGroup

    def test_each_leaf_has_the_stack_where_it_was_raised(self):
        pair = failed(ValueError("a"))
        (leaf,) = self.group({0: pair}).exceptions
        frames = [
            (frame.f_code.co_filename, line, frame.f_code.co_name)
            for frame, line in traceback.walk_tb(leaf.__traceback__)
        ]
        assert frames == [(f.filename, f.lineno, f.name) for f in pair[1]]

    def test_notes_tell_rank_host_and_process(self):
        made = gathered({3: capture(ValueError("a"))})
        (leaf,) = made.exception_group().exceptions
        host, pid = socket.gethostname(), os.getpid()
        assert leaf.__notes__ == [f"rank 3 on {host}, pid {pid}"]

    def test_the_users_exceptions_are_left_as_they_are(self):
        exc, summary = failed(ValueError("a"))
        before = exc.__traceback__
        made = CheckpointException("x", {0: (exc, summary)})
        (leaf,) = made.exception_group().exceptions
        assert leaf is not exc
        assert exc.__traceback__ is before
        assert not hasattr(exc, "__notes__")
        assert made.failures[0][0] is exc

    def test_each_call_makes_new_objects(self):
        made = gathered({3: capture(ValueError("a"))})
        one, other = made.exception_group(), made.exception_group()
        assert one.exceptions[0] is not other.exceptions[0]
        assert len(other.exceptions[0].__notes__) == 1

    def test_what_cannot_travel_is_a_remote_error(self):
        made = gathered({0: capture(ZOO["local_class"].catch())})
        (leaf,) = made.exception_group().exceptions
        assert type(leaf) is RemoteError
        assert leaf.message == "local"

    def test_a_leaf_whose_class_forbids_notes_does_not_cost_the_others(self):
        exc = ZOO["forbids_setting"].catch()
        group = self.group({0: wrap_exception(exc), 1: failed(ValueError("a"))})
        assert [type(leaf).__name__ for leaf in group.exceptions] == [
            "ForbidsSettingError",
            "ValueError",
        ]
        assert group.exceptions[1].__notes__ == ["rank 1"]

    def test_of_nothing_is_refused(self):
        with pytest.raises(ValueError, match="an exception group cannot be empty"):
            self.group({})


def test_an_exception_held_while_a_thread_lock_is_inside_stays_usable():
    lock = threading.Lock()
    exc = failed(ValueError("a", lock))[0]
    CheckpointException("x", {0: wrap_exception(exc)}).exception_group()
    assert exc.args[1] is lock
