"""What an exception for many ranks says of itself, and within another's chain."""

from __future__ import annotations

import pickle

import pytest

from allraise import CheckpointException, guard, wrap_exception
from allraise.bundle import Bundle
from allraise.capture import MAX_RETOLD_CHARS, capture
from allraise.exceptions import Agreed
from allraise.ranks import RankSet
from allraise.telling import MAX_BLOCKS, MAX_BLOCKS_ELSEWHERE
from unit import simulated


def outcome_of(comm, body, step="outer", **options):
    """Return what a guarded block raises on this rank."""
    try:
        with guard(comm, step, **options):
            body()
    except CheckpointException as outcome:
        return outcome
    pytest.fail("nothing was raised")


def retold(size, inner, outer, **options):
    """Fail in an inner step, catch that, and raise from it in an outer one.

    Args:
        size: How many ranks there are.
        inner: What each rank fails with in the inner step, by rank.
        outer: The ranks that raise in the outer one.
        options: Of the inner guard.
    """

    def main(comm):
        def fail():
            if comm.rank in inner:
                raise inner[comm.rank]

        def raise_from():
            if comm.rank in outer:
                raise RuntimeError("could not save") from first

        first = outcome_of(comm, fail, "inner", **options)
        return outcome_of(comm, raise_from)

    return simulated.World(size).run(main)


@pytest.mark.usefixtures("simulated_ranks")
class TestAFailureRaisedFromAnAgreedOne:
    def test_has_the_stack_of_another_rank_where_the_whole_report_was(self):
        text = str(retold(3, {1: ValueError("the real cause")}, {0})[0])
        head, _, told = text.partition("reported where it was raised\n")
        assert head.endswith(
            "allraise.CheckpointError: step 'inner' failed on rank 1, "
        )
        lines = told.partition("\nThe above exception")[0].splitlines()
        assert lines[0] == "  | rank 1:"
        assert lines[1] == "  | Traceback (most recent call last):"
        assert lines[-1] == "  | ValueError: the real cause"
        assert any(", in fail" in line for line in lines)

    def test_has_what_is_known_elsewhere(self):
        """Rank 2 knows of rank 1 only what all ranks were told."""
        text = str(retold(3, {1: ValueError("the real cause")}, {2})[0])
        assert (
            "failed on rank 1, reported where it was raised\n"
            "  | rank 1: ValueError: the real cause [rank 0 of 3 has the whole report]\n"
        ) in text

    def test_tells_alike_failures_once(self):
        errors = {rank: ValueError("alike") for rank in range(1, 6)}
        text = str(retold(6, errors, {0})[0])
        assert "  | ranks 1-5:\n" in text
        assert text.count("ValueError: alike\n") == 1

    def test_does_not_repeat_the_ranks_own(self):
        text = str(retold(2, {0: ValueError("own"), 1: KeyError("other")}, {0})[0])
        assert text.count("ValueError: own\n") == 1
        assert text.count("KeyError: 'other'\n") == 1
        assert "failed on ranks 0-1, reported" in text

    def test_tells_it_of_ones_own_too_where_the_cause_was_taken_off(self):
        def main(comm):
            def fail():
                raise ValueError("own")

            def raise_from():
                first.__cause__ = None
                raise RuntimeError("could not save") from first

            first = outcome_of(comm, fail, "inner")
            return outcome_of(comm, raise_from)

        (outcome,) = simulated.World(1).run(main)
        assert "  | ValueError: own\n" in str(outcome)

    def test_says_how_many_different_ones_there_are(self):
        errors = {rank: ValueError("x" * rank) for rank in range(1, 20)}
        text = str(retold(20, errors, {0})[0])
        assert text.count("  | ValueError: x") == 8
        assert "  | [11 more ranks failed]\n" in text

    def test_keeps_both_ends_of_a_long_text(self):
        errors = {
            rank: ValueError("\n".join(f"line {n} of {rank}" for n in range(800)))
            for rank in (1, 2, 3)
        }
        text = str(retold(4, errors, {0})[0])
        for rank in errors:
            assert f"  | ValueError: line 0 of {rank}\n" in text
            assert f"  | line 799 of {rank}\n" in text
            assert f"  | line 400 of {rank}\n" not in text
        assert text.count("more lines]\n") == len(errors)
        assert len(text) < 2 * MAX_RETOLD_CHARS

    @pytest.mark.parametrize(("alternate", "n_steps"), [(True, 50), (False, 10)])
    def test_stays_bounded_over_many_steps(self, alternate, n_steps):
        """Each step fails from the one before, on both ranks or on each in turn."""

        def main(comm):
            def fail():
                if not alternate or n % 2 == comm.rank:
                    raise ValueError(f"in step {n} of {comm.rank}") from last

            last, sizes = None, []
            for n in range(n_steps):
                last = outcome_of(comm, fail, f"step {n}", everywhere=True)
                sizes.append(len(str(last)))
            return last, sizes

        (last, sizes), _ = simulated.World(2).run(main)
        assert f"ValueError: in step {n_steps - 2} of 0\n" in str(last)
        # Of what is only retold, the innermost goes first.
        assert alternate or "ValueError: in step 0 of 0\n" in str(last)
        # A link of a chain costs a traceback; what is retold, a fixed room in all.
        assert max(sizes) < 2 * (n_steps * 1000 + MAX_RETOLD_CHARS)
        assert len(last.bundle.encode()) < 1024 * 1024


def on_many(n_ranks, where="", own=-1):
    bundle = Bundle()
    bundle.add(RankSet.from_ranges([(0, n_ranks - 1)]), capture(ValueError("same")))
    made = CheckpointException.from_bundle(
        "x", bundle, ordinary=True, agreed=Agreed(1, object(), own)
    )
    made.locate(n_ranks, where)
    return made


HERE = "rank 0 of 512 has the whole report"


def blocks_of(text):
    return [line[:-1].split()[-1] for line in text.splitlines() if "(RANK " in line]


def test_a_rank_without_the_whole_report_tells_its_own_failure_and_a_few():
    text = str(on_many(512, HERE, own=300))
    assert blocks_of(text) == ["300", *map(str, range(MAX_BLOCKS_ELSEWHERE))]
    assert text.startswith(f"CheckpointException ranks:dict_keys({[*range(512)]})\n")
    left = 511 - MAX_BLOCKS_ELSEWHERE
    assert text.endswith(f"same\n[{left} more ranks failed; {HERE}]\n")


def test_a_rank_that_has_not_failed_tells_a_few():
    text = str(on_many(512, HERE, own=600))
    assert blocks_of(text) == [*map(str, range(MAX_BLOCKS_ELSEWHERE))]


def test_a_rank_tells_all_where_they_are_few():
    text = str(on_many(MAX_BLOCKS_ELSEWHERE + 1, HERE, own=3))
    assert blocks_of(text) == [*map(str, range(MAX_BLOCKS_ELSEWHERE + 1))]
    assert text.endswith(f"same\n[{HERE}]\n")


def test_the_text_is_the_same_after_a_pickle():
    made = on_many(512, HERE, own=300)
    assert str(pickle.loads(pickle.dumps(made))) == str(made)


def test_a_rank_with_the_whole_report_tells_all():
    assert len(blocks_of(str(on_many(512, own=300)))) == 512


def test_the_first_line_says_how_many_more_there_are_beyond_the_cap():
    pair = wrap_exception(ValueError("a"))
    made = CheckpointException("x", dict.fromkeys(range(MAX_BLOCKS + 9), pair))
    first = str(made).partition("\n")[0]
    assert first.startswith("CheckpointException ranks:dict_keys([0, 1, 2, ")
    assert first.endswith(f" {MAX_BLOCKS - 1}, ... 9 more])")
