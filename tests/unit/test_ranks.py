"""Sets of ranks as text and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allraise.ranks import MAX_RANGES_SHOWN, RankSet

RANKS = st.sets(st.integers(0, 200))


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([], ""),
        ([0], "0"),
        ([1, 0], "0-1"),
        ([0, 1, 2, 4], "0-2,4"),
        ([0, 1, 2, *range(4, 512)], "0-2,4-511"),
        ([5, 5, 5], "5"),
        ([0, 2, 4], "0,2,4"),
    ],
)
def test_ranks_are_written_as_ranges(ranks, text):
    assert str(RankSet(ranks)) == text
    assert repr(RankSet(ranks)) == f"RankSet('{text}')"


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("0", [0]),
        (" 0 - 2 , 4 ", [0, 1, 2, 4]),
        ("4,0-2", [0, 1, 2, 4]),
        ("0-3,2-5", [0, 1, 2, 3, 4, 5]),
        ("7-7", [7]),
    ],
)
def test_text_is_read_in_any_order(text, ranks):
    assert list(RankSet.parse(text)) == ranks


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "1--2", "1,,2", ",", "1;2", "0x1", "\u0661", "1.0"]
)
def test_what_is_no_set_is_refused(text):
    with pytest.raises(ValueError, match=r"not a set of ranks: .*like 0-2,4"):
        RankSet.parse(text)


def test_a_range_that_runs_backwards_is_refused():
    with pytest.raises(ValueError, match="'5-3' in '1,5-3' ends before it begins"):
        RankSet.parse("1,5-3")


@given(RANKS.filter(len))
def test_writing_and_reading_round_trips(ranks):
    made = RankSet(ranks)
    if len(made.ranges) <= MAX_RANGES_SHOWN:
        assert RankSet.parse(str(made)) == made


@given(RANKS, RANKS)
def test_it_behaves_as_the_set_of_its_ranks(one, other):
    made, both = RankSet(one), RankSet(one) | RankSet(other)
    assert list(made) == sorted(one)
    assert len(made) == len(one)
    assert bool(made) == bool(one)
    assert set(both) == one | other
    assert both == RankSet(one | other)
    assert hash(both) == hash(RankSet(one | other))
    assert all((rank in made) == (rank in one) for rank in range(-1, 202))
    assert (made == RankSet(other)) == (one == other)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=20))
def test_ranges_may_overlap_and_touch(pairs):
    ranges = [(first, first + length) for first, length in pairs]
    made = RankSet.from_ranges(ranges)
    assert set(made) == {r for a, b in ranges for r in range(a, b + 1)}
    gaps = [b[0] - a[1] for a, b in zip(made.ranges, made.ranges[1:], strict=False)]
    assert all(gap > 1 for gap in gaps)


def test_a_set_with_too_many_ranges_tells_how_many_are_left():
    text = str(RankSet(range(0, 1000, 2)))
    assert text.endswith("126 and 436 more")


def test_a_hundred_thousand_ranks_are_one_range():
    assert RankSet(range(100_000)).ranges == ((0, 99_999),)
    assert RankSet(range(100_000)).first == 0
