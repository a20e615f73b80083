"""Guards on several communicators, as a model: thousands of random programs."""

from __future__ import annotations

import dataclasses

import pytest

import nested
from unit.nested_model import Deadlock, Rules, simulate

N_PROGRAMS = 6000
CHUNK = 1000  # of programs in a test
SIZES = (3, 4, 5, 6)
N_SEARCHED = 600  # programs for one rule that is missing


def run_program(seed, rules, *, contained=True):
    """Run one program, in one order of what its ranks do and hear."""
    program = nested.generate(seed, SIZES[seed % len(SIZES)], contained=contained)
    return simulate(program, seed, rules)


def run_programs(seeds, rules, **which):
    for seed in seeds:
        run_program(seed, rules, **which)


@pytest.mark.parametrize("contained", [True, False])
@pytest.mark.parametrize("first", range(0, N_PROGRAMS, CHUNK))
def test_every_program_ends_alike_on_all_ranks(first, contained):
    n_failed = 0
    for seed in range(first, first + CHUNK):
        ranks = run_program(seed, Rules(), contained=contained)
        n_failed += any(outcome for _, outcome in ranks[0].log)
    assert CHUNK / 2 < n_failed < CHUNK  # the programs are worth something


def test_a_rank_that_stays_away_is_a_deadlock():
    """The check itself: the model does not take waiting for an end."""
    body = (nested.Guard(1, "world", (nested.Talk(2, "world", "barrier"),)),)
    program = nested.Program(0, 2, (), body)
    assert len(simulate(program, 0, Rules())) == 2
    lone = nested.Guard(1, "left", (nested.Talk(2, "world", "barrier"),))
    inside = (nested.Guard(3, "world", (lone,)),)
    with pytest.raises(Deadlock):
        simulate(nested.Program(0, 2, (), inside), 0, Rules())


def test_where_nothing_is_around_a_wider_guard_waits_for_who_failed_before_it():
    """What docs/sharp-bits.md tells: the others know nothing of that failure."""
    wide = nested.Guard(3, "world", ())
    body = (nested.Work(2, frozenset({0})), wide)
    half = nested.Guard(1, "halves", body)
    with pytest.raises(Deadlock):
        simulate(nested.Program(0, 4, (), (half,)), 0, Rules())
    within = nested.Guard(4, "world", (half,))
    assert len(simulate(nested.Program(0, 4, (), (within,)), 0, Rules())) == 4


# Where to begin to look, to find it soon.
@pytest.mark.parametrize(
    ("rule", "first"),
    [
        ("numbered_gates", 0),
        ("told_at_entry", 1500),
        ("second_meeting", 0),
        ("forgetting", 0),
        ("renewing", 0),
        ("depths", 2600),
        ("settled_around", 0),
        ("twins", 0),
    ],
)
def test_without_one_of_its_rules_the_protocol_fails(rule, first):
    # Ranks that would wait for each other are found by other rules otherwise.
    rules = dataclasses.replace(Rules(standing=False), **{rule: False})
    with pytest.raises((Deadlock, AssertionError)):
        run_programs(range(first, first + N_SEARCHED), rules)


@pytest.mark.parametrize(
    ("rule", "first"),
    [("standing", 0), ("ends", 900), ("doors", 0), ("messages", 0), ("gone", 1700)],
)
def test_groups_that_overlap_need_rules_of_their_own(rule, first):
    rules = dataclasses.replace(Rules(), **{rule: False})
    with pytest.raises((Deadlock, AssertionError)):
        run_programs(range(first, first + N_SEARCHED), rules, contained=False)
