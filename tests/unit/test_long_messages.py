"""What becomes of messages that are longer than anyone reads."""

from __future__ import annotations

import pytest

from allraise import CheckpointException
from allraise.bodies import MAX_BODY_BYTES
from allraise.bundle import Bundle
from allraise.capture import MAX_CAUSE_CHARS, MAX_MESSAGE_CHARS, capture
from allraise.summary import MAX_SUMMARY_CHARS, read_summary, summarise

LONG = MAX_BODY_BYTES + 1000


def failed(exc, cause=None):
    try:
        raise exc from cause
    except BaseException as caught:
        return caught


def gathered(*excs):
    records = [Bundle.of(rank, capture(exc)) for rank, exc in enumerate(excs)]
    bundle = Bundle.decode(Bundle.merge(records, capped=True).encode())
    return CheckpointException.from_bundle("write", bundle, ordinary=True)


def test_a_message_up_to_the_cap_is_printed_whole():
    message = "x" * MAX_MESSAGE_CHARS
    assert MAX_MESSAGE_CHARS >= 64 * 1024
    made = gathered(failed(ValueError(message)))
    assert str(made).endswith(f"\nValueError: {message}\n")
    assert str(made.failures[0][0]) == message


def test_a_longer_one_is_cut_and_says_by_how_much():
    made = gathered(
        failed(ValueError("x" * (MAX_MESSAGE_CHARS + 77))), failed(KeyError("next"))
    )
    assert str(made).count("x") < MAX_MESSAGE_CHARS + 100
    assert "xxx... [77 more characters]\nTraceback (most recent call last)" in str(made)


def test_that_of_a_cause_is_cut_earlier():
    cause = failed(KeyError("x" * 2 * MAX_CAUSE_CHARS))
    made = gathered(failed(ValueError("a"), cause))
    left = 2 * MAX_CAUSE_CHARS + 2 - MAX_CAUSE_CHARS  # in quotes
    assert f"xxx... [{left} more characters]\n\nThe above exception" in str(made)


@pytest.mark.parametrize("character", ["x", "\u20ac", "\U0001f600"])
@pytest.mark.parametrize("make", [ValueError, lambda text: OSError(5, text)])
def test_the_object_has_as_much_of_it_and_says_how_much_more_there_is(make, character):
    made = gathered(failed(make(character * LONG)))
    for exc in (made.failures[0][0], made.exception_group().exceptions[0]):
        assert type(exc) is type(make(""))
        kept = str(exc).count(character)
        assert kept > MAX_MESSAGE_CHARS // 5
        assert str(exc).endswith(f"... [{LONG - kept} more characters]")


def test_what_holds_several_long_texts_keeps_a_part_of_each():
    exc = ValueError("x" * LONG)
    exc.text = "y" * LONG
    exc.more = "z" * LONG
    kept, _ = gathered(failed(exc)).failures[0]
    assert type(kept) is ValueError
    assert " more characters]" in str(kept)
    assert " more characters]" in kept.text
    assert kept.more == f"... [{LONG} more characters]"


def test_an_exception_within_another_says_how_much_more_there_is():
    inner = type("LocalError", (Exception,), {})("x" * LONG)
    made, _ = gathered(failed(ValueError("a", inner))).failures[0]
    assert str(made.args[1]).endswith(" more characters]")


def test_the_other_ranks_are_told_how_much_more_there_is():
    bundle = Bundle.of(0, capture(ValueError("x" * (MAX_SUMMARY_CHARS + 5))))
    told = read_summary(summarise(bundle), "rank 0 has it")
    ((_, record),) = told.records()
    assert record.links[0].message.endswith("xxx... [5 more characters]")


def test_a_merged_report_holds_several_that_are_as_long_as_can_be():
    excs = [failed(ValueError(f"{n}" * MAX_MESSAGE_CHARS)) for n in range(10)]
    text = str(gathered(*excs))
    assert all(f"ValueError: {str(n) * 100}" in text for n in range(10))
    assert text.count(", in failed\n") == 10
