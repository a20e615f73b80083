"""Play random programs over several communicators, on real ranks.

The arguments are first and last seed, and ``contained`` or ``any``: whether each
guard's group lies within those around it; and perhaps ``near``: they communicate in the
innermost guard alone. Rank 0 prints a line for each program.
Ranks that hang show their stacks and end.
"""

import faulthandler
import sys
import time
import traceback
from array import array
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mpi4py import MPI

import allraise
import nested
from allraise import agreement

HANGS_AFTER_S = 60.0
PAUSE_S = 0.002

world = MPI.COMM_WORLD


class Failure(Exception):
    """What the ranks of a program raise."""


class Player:
    """One rank of one program."""

    def __init__(self, program):
        self.program = program
        self.comms = {}
        self.groups = {}  # of each family this rank's, as ranks of the world
        for family, groups in nested.groups_of(program.size).items():
            for group in groups:
                if world.rank in group:
                    self.groups[family] = group
                    self.comms[family] = world.Create_group(world.group.Incl(group))
        self.open = []  # (family, guard)
        self.ledger = []  # each agreement that this rank took part in

    def play(self):
        for family in self.program.touched:
            if family in self.comms:
                allraise.agree(None, self.comms[family], f"{family} before")
        for statement in self.program.body:
            with suppress(allraise.CheckpointException):
                self.do(statement)
        for family, comm in self.comms.items():
            with allraise.guard(comm, f"{family} after") as g:
                g.comm.barrier()
                assert g.comm.allreduce(1) == comm.size
        return self.ledger

    def do(self, statement):
        getattr(self, f"do_{type(statement).__name__.lower()}")(statement)

    def do_work(self, work):
        if world.rank in work.fails:
            message = f"{work.number} on {world.rank}"
            raise Failure(message)

    def do_pause(self, pause):
        if world.rank in pause.ranks:
            time.sleep(PAUSE_S)

    def do_try(self, attempt):
        try:
            self.do(attempt.guard)
        except Exception:
            if world.rank not in attempt.swallows:
                raise

    def do_guard(self, statement):
        if statement.family in self.comms:
            comm = self.comms[statement.family]
            with allraise.guard(comm, statement.step) as g:
                self.open.append((statement.family, g))
                try:
                    for inner in statement.body:
                        self.do(inner)
                finally:
                    self.open.pop()

    def do_talk(self, talk):
        comm = next(g.comm for name, g in reversed(self.open) if name == talk.family)
        if talk.kind == "barrier":
            comm.Barrier()
        elif talk.kind == "allreduce":
            total = array("q", [0])
            comm.Allreduce(array("q", [1]), total)
            assert total[0] == comm.size
        elif talk.kind == "ring":
            there, back = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
            assert comm.sendrecv(talk.number, there, 0, None, back, 0) == talk.number
        else:
            assert comm.allgather(comm.rank) == list(range(comm.size))

    def note(self, private, exc, outcome, *, agreed):
        """Write down how an agreement ended, in ranks of the world."""
        family = next(f for f, c in self.comms.items() if c.handle == private.handle)
        entry = {
            "family": family,
            "group": self.groups[family],
            "agreed": agreed,
            "fails": str(exc) if isinstance(exc, Failure) else None,
            "passes_on": sorted(self.messages(exc, interrupted=False)),
            "outcome": None,
        }
        if agreed and outcome is not None:
            failed = {self.groups[family][rank] for rank in outcome.ranks}
            entry["outcome"] = (outcome.step, sorted(failed))
            entry["told"] = None if outcome.is_partial else self.messages(outcome)
        self.ledger.append(entry)

    def messages(self, outcome, *, interrupted=True):
        """Return what an outcome tells of each rank of the world."""
        if not isinstance(outcome, allraise.CheckpointException):
            return {}
        group = self.groups[outcome.step.partition(" ")[0]]
        # Where nobody but interrupted ranks tell of anything, they are the failures.
        told = outcome.bundle.failures()
        if not interrupted:
            told = told.without_interrupted()
        return {
            group[rank]: record.links[0].message
            for ranks, record in told.records()
            for rank in ranks
        }


def watch(player_of):
    """Have every agreement written down by the player."""
    real, real_exit = agreement.leave, allraise.guard.__exit__
    left = {}  # by identity: they stay alive, so no other has it

    def leave(opened, exc, place, **refused):
        left[id(opened)] = opened
        private = opened[0]
        is_settled, n_failed = private.settled is not None, private.n_failed
        asks = private.asking
        outcome = real(opened, exc, place, **refused)
        # Who asks to be woken agrees once more, not all alike, unless it fails.
        if not (is_settled or (asks and outcome is None)):
            agreed = outcome is None or private.n_failed > n_failed
            player_of().note(private, exc, outcome, agreed=agreed)
        return outcome

    for module in ("agreement", "guard", "caught"):
        sys.modules[f"allraise.{module}"].leave = leave

    def exit_(self, *exc_info):
        entered = self._entered
        real_exit(self, *exc_info)
        if self._timeout is None and id(opened := entered[0]) not in left:
            # A compiled block, which needed no `leave`: all went well.
            player_of().note(opened[0], None, None, agreed=True)

    allraise.guard.__exit__ = exit_


def check(ledgers):
    """Hold what the ranks saw against each other; return how much there was."""
    n_agreements = n_failed = 0
    groups = {(e["family"], e["group"]) for ledger in ledgers for e in ledger}
    for family, group in sorted(groups):
        rows = [
            [entry for entry in ledgers[rank] if entry["family"] == family]
            for rank in group
        ]
        done = [[entry for entry in row if entry["agreed"]] for row in rows]
        ends = [[entry["outcome"] for entry in row] for row in done]
        assert all(end == ends[0] for end in ends), f"{family} {group}: {ends}"
        for entries in zip(*done, strict=True):
            n_agreements += 1
            n_failed += check_agreement(group, entries)
    return n_agreements, n_failed


def check_agreement(group, entries):
    """See that the report of one agreement lacks nobody; return if it failed."""
    fails = {
        rank: entry["fails"]
        for rank, entry in zip(group, entries, strict=True)
        if entry["fails"] is not None
    }
    passed_on = {rank for entry in entries for rank in entry["passes_on"]}
    if entries[0]["outcome"] is None:
        assert not fails, f"lost: {fails}"
        assert not passed_on, f"lost: {passed_on}"
        return False
    _, failed = entries[0]["outcome"]
    missing = (set(fails) | passed_on & set(group)) - set(failed)
    assert not missing, f"ranks {missing} are not in the report of {entries}"
    whole = [entry["told"] for entry in entries if entry["told"] is not None]
    assert len(whole) == 1, f"not one whole report: {entries}"
    for rank, message in fails.items():
        assert whole[0][rank] == message, f"of rank {rank}: {entries}"
    return True


def main():
    first, last, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    players = []
    watch(lambda: players[-1])
    for seed in range(first, last):
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        program = nested.generate(
            seed,
            world.size,
            contained=mode == "contained",
            near="near" in sys.argv[4:],
        )
        players[:] = [Player(program)]
        ledgers = world.gather(players[0].play())
        if world.rank == 0:
            try:
                n_agreements, n_failed = check(ledgers)
            except AssertionError:
                print(f"seed {seed}: WRONG\n{traceback.format_exc()}", flush=True)
            else:
                counts = f"{n_agreements} agreements, {n_failed} on a failure"
                print(f"seed {seed}: well, {counts}", flush=True)
        for comm in players[0].comms.values():
            comm.Free()
    faulthandler.cancel_dump_traceback_later()


main()
