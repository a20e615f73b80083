"""The protocol on simulated ranks: thousands of random SPMD programs."""

from __future__ import annotations

import pprint

import pytest

import spmd
from allraise import closing, gathering, reducing, verdict
from allraise.bundle import Bundle
from unit import simulated

N_PROGRAMS = 2400
N_TREE_PROGRAMS = 600
CHUNK = 300  # of programs in a test
N_LARGE_PROGRAMS = 30


@pytest.fixture
def players(monkeypatch, simulated_ranks):
    """The players of the program that is running, by their `Private`."""
    found = {}
    spmd.watch(monkeypatch.setattr, found.get)
    return found


def after(comm):
    """What is left behind is nothing: a following region works."""
    private = comm.private
    assert private.settled is None
    assert private.steps == []
    spmd.allraise.agree(None, comm, "after")


def run_program(seed, size, players, *, then=after):
    """Run one program on simulated ranks and check all that must hold."""
    program = spmd.generate(seed, size)
    world = simulated.World(size)
    players.clear()

    def main(comm):
        player = spmd.Player(comm, comm.rank, size)
        players[comm.private] = player
        player.play(program)
        then(comm)
        return player

    try:
        played = world.run(main)
        spmd.check([p.ledger for p in played], [p.log for p in played])
    except BaseException as error:
        error.add_note(f"seed {seed}, {size} ranks:\n{pprint.pformat(program)}")
        raise
    return played


def size_of(seed):
    return 1 + seed % 5


@pytest.mark.parametrize("first", range(0, N_PROGRAMS, CHUNK))
def test_every_program_ends_alike_on_all_ranks(first, players):
    n_failed = n_agreements = 0
    for seed in range(first, first + CHUNK):
        played = run_program(seed, size_of(seed), players)
        n_agreements += len(played[0].ledger)
        n_failed += sum(entry["outcome"] is not None for entry in played[0].ledger)
    # The programs are worth something: they fail, and they go on.
    assert n_failed > CHUNK
    assert n_agreements - n_failed > CHUNK


@pytest.mark.parametrize("first", range(0, N_TREE_PROGRAMS, CHUNK))
def test_every_program_ends_alike_where_reports_merge_in_a_tree(
    first, players, monkeypatch
):
    monkeypatch.setattr(gathering, "MAX_GATHERED_RANKS", 1)
    for seed in range(first, first + CHUNK):
        run_program(seed, 2 + seed % 7, players)


def test_every_program_ends_alike_on_more_ranks_than_one_gather_takes(players):
    for seed in range(N_LARGE_PROGRAMS):
        run_program(seed, gathering.MAX_GATHERED_RANKS + 1 + seed % 8, players)


def without_settled(monkeypatch):
    """Ranks communicate again on their way out."""
    real = closing._close

    def forget(opened, failed_depth):
        real(opened, failed_depth)
        opened[0].settled = None

    monkeypatch.setattr(closing, "_close", forget)


def without_tokens(monkeypatch):
    """An outcome that reaches an outer region is a failure like any other."""
    monkeypatch.setattr(reducing, "token_of", lambda private, exc: 0)


def without_retelling(monkeypatch):
    """Who has swallowed a failure keeps silent when others pass it on."""
    monkeypatch.setattr(Bundle, "only", lambda *_, **__: Bundle())


def without_own_words(monkeypatch):
    """What a rank hears of another is believed more than what that one says."""
    monkeypatch.setattr(gathering, "_own_words", lambda told: [])


def without_kinds(monkeypatch):
    """Collective steps of different kinds go together."""
    real = verdict._hash_of

    def by_name(region):
        return real(region if isinstance(region, str) else region[0])

    monkeypatch.setattr(verdict, "_hash_of", by_name)
    verdict.HASHES.clear()


def run_until(found, players):
    """Run programs until one ends in a certain way."""
    for seed in range(N_PROGRAMS):
        try:
            # Nothing follows, or it would take the place of what is missed.
            run_program(seed, size_of(seed), players, then=lambda comm: None)
        except (AssertionError, simulated.Deadlock) as error:
            if isinstance(error, found):
                raise


@pytest.mark.parametrize(
    ("break_rule", "found"),
    [
        (without_settled, simulated.Deadlock),
        (without_tokens, AssertionError),
        (without_retelling, AssertionError),
        (without_own_words, AssertionError),
        (without_kinds, simulated.Deadlock),
    ],
)
def test_without_one_of_its_rules_the_protocol_fails(
    break_rule, found, players, monkeypatch
):
    """The same programs find each rule missing."""
    break_rule(monkeypatch)
    with pytest.raises(found):
        run_until(found, players)


def test_a_deadlock_is_found_at_once():
    def main(comm):
        if comm.rank:
            comm.bcast(None, root=0)

    with pytest.raises(simulated.Deadlock, match="rank 1 waits in bcast"):
        simulated.World(2).run(main)


def test_collectives_of_different_kinds_that_meet_are_an_error():
    def main(comm):
        comm.bcast(None) if comm.rank else comm.gather(None)

    with pytest.raises(simulated.Deadlock, match="rank 1 is in"):
        simulated.World(2).run(main)
