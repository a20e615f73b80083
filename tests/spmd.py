"""Random SPMD programs, and what must hold of every one of them.

`generate` makes a program from a seed; `play` runs one rank of it on any
communicator; `check` compares what the ranks saw. Used on simulated ranks and
on real ones.

`check` has an account of its own of each agreement. It knows which exception
each rank brought, and from that which ranks the outcome must name::

    fresh exception of rank r            r, with that exception and no other
    an outcome that was agreed before    every rank in it, with what it had then
    nothing on any rank                  no outcome, or a mismatch of all ranks
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import allraise
from allraise import CheckpointException, RemoteError, agreement
from allraise.registry import known_private

STEP_KINDS = (
    "all_gather",
    "all_reduce",
    "reduce_scatter",
    "broadcast",
    "barrier",
    "gather_object",
    "scatter_object",
)
MAX_DEPTH = 5


class Halt(BaseException):
    """A failure that is no `Exception`."""


class Unpicklable(Exception):
    """A failure that can only be told."""

    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


@dataclass(frozen=True)
class Work:
    """Does nothing, but fails on some ranks."""

    number: int
    fails: dict[int, str]


@dataclass(frozen=True)
class Guard:
    number: int
    step: str
    roots: tuple[int, ...]
    everywhere: bool
    body: tuple[Any, ...]
    skip: frozenset[int]


@dataclass(frozen=True)
class Agree:
    number: int
    step: str
    roots: tuple[int, ...]
    fails: dict[int, str]
    collects: bool
    skip: frozenset[int]


@dataclass(frozen=True)
class Steps:
    number: int
    step: str
    kind: str
    coordinators: tuple[int, ...]
    fails: dict[int, str]
    skip: frozenset[int]


@dataclass(frozen=True)
class Refused:
    """A guard to which some ranks pass a root that is none."""

    number: int
    ranks: frozenset[int]


@dataclass(frozen=True)
class Again:
    """Raises on some ranks an outcome that they have kept, and fails on others."""

    number: int
    ranks: frozenset[int]
    newest: bool
    fails: dict[int, str]


@dataclass(frozen=True)
class Loop:
    number: int
    counts: tuple[int, ...]
    body: tuple[Any, ...]


@dataclass(frozen=True)
class Try:
    """Catches on some ranks: what, and what it does then."""

    number: int
    body: tuple[Any, ...]
    handlers: dict[int, tuple[type[BaseException], str]]


class Generator:
    """Makes a program of about a dozen statements."""

    def __init__(self, rng: random.Random, size: int, *, unbalanced: bool) -> None:
        self.rng = rng
        self.size = size
        self.unbalanced = unbalanced
        self.number = 0

    def program(self) -> tuple[Any, ...]:
        return tuple(self.closed() for _ in range(self.rng.randint(1, 4)))

    def some(self, chance: float) -> frozenset[int]:
        """No rank most often; else one, some or all."""
        if self.rng.random() >= chance:
            return frozenset()
        kind = self.rng.random()
        if kind < 0.5:
            return frozenset((self.rng.randrange(self.size),))
        if kind < 0.75:
            return frozenset(range(self.size))
        return frozenset(r for r in range(self.size) if self.rng.random() < 0.5)

    def fails(self, chance: float) -> dict[int, str]:
        kinds = ("error", "error", "base", "chained", "unpicklable")
        return {rank: self.rng.choice(kinds) for rank in self.some(chance)}

    def skip(self) -> frozenset[int]:
        return self.some(0.12) if self.unbalanced else frozenset()

    def ranks(self) -> tuple[int, ...]:
        """A root for each rank, most often the same."""
        if self.rng.random() < 0.1:
            return tuple(self.rng.randrange(self.size) for _ in range(self.size))
        return (self.rng.choice((0, 0, self.rng.randrange(self.size))),) * self.size

    def step(self) -> str:
        return self.rng.choice(("", "a", "a", "b"))  # few, so that they get mixed up

    def next(self) -> int:
        self.number += 1
        return self.number

    def closed(self) -> Any:
        """A statement that every rank of the top level takes part in."""
        kind = self.rng.random()
        if kind < 0.85:
            body = self.body(1)
            everywhere = self.rng.random() < 0.2
            return Guard(
                self.next(), self.step(), self.ranks(), everywhere, body, frozenset()
            )
        if kind < 0.9:
            return self.agree(frozenset())
        if kind < 0.95:
            return self.steps(frozenset())
        return Refused(self.next(), self.some(1.0))

    def body(self, depth: int) -> tuple[Any, ...]:
        return tuple(self.statement(depth) for _ in range(self.rng.randint(1, 3)))

    def statement(self, depth: int) -> Any:
        kind = self.rng.random()
        if depth >= MAX_DEPTH or kind < 0.25:
            return Work(self.next(), self.fails(0.3))
        if kind < 0.7:
            return self.region(depth)
        if kind < 0.9:
            return self.attempt(depth)
        if kind < 0.93:
            return Refused(self.next(), self.some(1.0))
        if kind < 0.97:
            newest = self.rng.random() < 0.3
            return Again(self.next(), self.some(1.0), newest, self.fails(0.5))
        counts = (self.rng.randint(0, 3),) * self.size
        if self.unbalanced and self.rng.random() < 0.3:
            counts = tuple(self.rng.randint(0, 3) for _ in range(self.size))
        return Loop(self.next(), counts, self.body(depth + 1))

    def region(self, depth: int) -> Any:
        kind = self.rng.random()
        if kind < 0.2:
            return self.agree(self.skip())
        if kind < 0.4:
            return self.steps(self.skip())
        body = self.body(depth + 1)
        everywhere = self.rng.random() < 0.2
        return Guard(
            self.next(), self.step(), self.ranks(), everywhere, body, self.skip()
        )

    def agree(self, skip: frozenset[int]) -> Agree:
        collects = self.rng.random() < 0.5
        fails = self.fails(0.4)
        return Agree(self.next(), self.step(), self.ranks(), fails, collects, skip)

    def steps(self, skip: frozenset[int]) -> Steps:
        kind = self.rng.choice(STEP_KINDS)
        number = self.next()
        fails = self.fails(0.4)
        coordinators = self.ranks()
        return Steps(number, self.step(), kind, coordinators, fails, skip)

    def attempt(self, depth: int) -> Try:
        body = self.body(depth + 1)
        catching = self.some(0.9)
        handlers = {
            rank: (
                self.rng.choice((Exception, BaseException)),
                self.rng.choice(("swallow", "swallow", "from", "context", "again")),
            )
            for rank in sorted(catching)
        }
        return Try(self.next(), body, handlers)


def generate(seed: int, size: int) -> tuple[Any, ...]:
    """Make a program; one in two has skipped guards and uneven loops."""
    rng = random.Random(seed)
    return Generator(rng, size, unbalanced=seed % 2 == 1).program()


@dataclass
class Player:
    """One rank of one program."""

    comm: Any
    rank: int
    size: int
    kept: list[CheckpointException] = field(default_factory=list)
    log: list[Any] = field(default_factory=list)  # how each top statement ended
    ledger: list[Any] = field(default_factory=list)  # each agreement
    n_raised: int = 0

    def play(self, program: tuple[Any, ...]) -> None:
        for statement in program:
            try:
                self.do(statement)
                self.log.append("went well")
            except CheckpointException as error:
                self.log.append([type(error).__name__, error.step, list(error.ranks)])
                self.keep(error)
            except (ValueError, Halt) as error:
                self.log.append(type(error).__name__)

    def keep(self, error: BaseException) -> None:
        if isinstance(error, CheckpointException):
            self.kept.append(error)

    def make(self, number: int, kind: str) -> BaseException:
        self.n_raised += 1
        text = f"{number}: rank {self.rank}, {self.n_raised}"
        made = {"base": Halt, "unpicklable": Unpicklable}.get(kind, ValueError)(text)
        if kind == "chained":
            made.__cause__ = OSError("below")
        return made

    def do(self, statement: Any) -> None:
        if self.rank in getattr(statement, "skip", ()):
            return
        getattr(self, f"do_{type(statement).__name__.lower()}")(statement)

    def do_all(self, body: tuple[Any, ...]) -> None:
        for statement in body:
            self.do(statement)

    def fail(self, statement: Any) -> None:
        kind = statement.fails.get(self.rank)
        if kind is not None:
            raise self.make(statement.number, kind)

    def do_work(self, statement: Work) -> None:
        self.fail(statement)

    def do_guard(self, statement: Guard) -> None:
        root = statement.roots[self.rank]
        with allraise.guard(
            self.comm, statement.step, root=root, everywhere=statement.everywhere
        ):
            self.do_all(statement.body)

    def do_agree(self, statement: Agree) -> None:
        caught = None
        try:
            self.fail(statement)
        except BaseException as error:
            caught = error
        root = statement.roots[self.rank]
        if statement.collects:
            outcome = allraise.collect(caught, self.comm, statement.step, root=root)
            if outcome is not None:
                self.keep(outcome)
        else:
            allraise.agree(caught, self.comm, statement.step, root=root)

    def do_steps(self, statement: Steps) -> None:
        steps = allraise.CollectiveSteps(self.comm, statement.coordinators[self.rank])
        step = statement.step

        def mapped() -> int:
            self.fail(statement)
            return self.rank

        if statement.kind == "barrier":
            steps.barrier()
        elif statement.kind == "all_gather":
            assert steps.all_gather(step, mapped) == list(range(self.size))
        elif statement.kind == "all_reduce":
            assert steps.all_reduce(step, mapped, sum) == sum(range(self.size))
        elif statement.kind == "reduce_scatter":
            assert steps.reduce_scatter(step, mapped, lambda all_: all_) == self.rank
        elif statement.kind == "broadcast":
            assert steps.broadcast(step, mapped) == steps.coordinator_rank
        elif statement.kind == "gather_object":
            expected = list(range(self.size)) if steps.is_coordinator else None
            assert steps.gather_object(self.rank) == expected
        else:
            values = list(range(self.size)) if steps.is_coordinator else None
            assert steps.scatter_object(values) == self.rank

    def do_refused(self, statement: Refused) -> None:
        root = self.size + 7 if self.rank in statement.ranks else 0
        with allraise.guard(self.comm, "refused", root=root):
            pass

    def do_again(self, statement: Again) -> None:
        if self.rank in statement.ranks and self.kept:
            raise self.kept[-1 if statement.newest else 0]
        self.fail(statement)

    def do_loop(self, statement: Loop) -> None:
        for _ in range(statement.counts[self.rank]):
            self.do_all(statement.body)

    def do_try(self, statement: Try) -> None:
        if self.rank not in statement.handlers:
            self.do_all(statement.body)
            return
        caught_type, action = statement.handlers[self.rank]
        try:
            self.do_all(statement.body)
        except caught_type as error:
            if type(error).__name__ in ("AssertionError", "Deadlock"):
                raise
            self.keep(error)
            if action == "from":
                raise self.make(statement.number, "error") from error
            if action == "context":
                raise self.make(statement.number, "error")  # noqa: B904 that is it
            if action == "again":
                raise


def watch(setattr_: Any, player_of: Any) -> None:
    """Have every agreement written down in the ledger of its player.

    Args:
        setattr_: ``monkeypatch.setattr``, or as it.
        player_of: The player of a `Private`, or None.
    """
    real, real_exit = agreement.leave, allraise.guard.__exit__
    left = {}  # by identity: they stay alive, so no other has it

    def leave(opened, exc, *args, **kwargs):
        left[id(opened)] = opened
        private = opened[0]
        agrees = private.settled is None
        before = _state(exc)
        outcome = real(opened, exc, *args, **kwargs)
        player = player_of(private)
        if agrees and player is not None:
            entry = _entry(private, exc, outcome, refused=kwargs.get("refused", False))
            entry["touched"] = before != _state(exc) and not entry["same"]
            player.ledger.append(entry)
        return outcome

    for module in ("guard", "caught", "row", "arguments"):
        # By name: `allraise.guard` is the class.
        setattr_(import_module(f"allraise.{module}"), "leave", leave)

    def exit_(self, *exc_info):
        entered = self._entered
        real_exit(self, *exc_info)
        if self._timeout is None and id(opened := entered[0]) not in left:
            # A compiled block, which needed no `leave`: all went well.
            player = player_of(opened[0])
            if player is not None:
                entry = _entry(opened[0], None, None, refused=False)
                player.ledger.append(entry | {"touched": False})

    setattr_(allraise.guard, "__exit__", exit_)
    module = import_module("allraise.caught")
    real_plainly = module.agree_plainly

    def plainly(leave, comm, *args):
        n_left = len(left)
        outcome = real_plainly(leave, comm, *args)
        if outcome is None and len(left) == n_left:
            # The same, without a block.
            player = player_of(private := known_private(comm))
            if player is not None:
                entry = _entry(private, None, None, refused=False)
                player.ledger.append(entry | {"touched": False})
        return outcome

    setattr_(module, "agree_plainly", plainly)


def _state(exc):
    """What nobody but its owner may change of an exception."""
    if exc is None:
        return None
    links = (exc.__cause__, exc.__context__, exc.__traceback__)
    return [*map(id, links), exc.__suppress_context__, list(vars(exc))]


def _entry(private, exc, outcome, *, refused):
    agreed = getattr(exc, "agreed", None)
    entry: dict[str, Any] = {
        "brought": None if exc is None else str(exc).partition("\n")[0],
        "token": agreed.token if agreed is not None else 0,
        "ordinary": exc is None or isinstance(exc, Exception),
        "refused": refused,
        "same": outcome is not None and outcome is exc,
        "outcome": None,
    }
    if not isinstance(outcome, CheckpointException):
        entry["outcome"] = outcome if outcome is None else type(outcome).__name__
        return entry
    entry["outcome"] = {
        "type": type(outcome).__name__,
        "step": outcome.step,
        "ranks": list(outcome.ranks),
        "token": outcome.agreed.token,
    }
    told = {}
    nested = False
    for ranks, record in outcome.bundle.records():
        for rank in ranks:
            assert rank not in told, f"rank {rank} is told twice"
            told[rank] = record.links[0].message.partition("\n")[0]
        for link in record.links:
            nested |= "dict_keys" in "".join((link.message, *link.lines))
    entry["told"] = told
    entry["nested"] = nested
    entry["partial"] = outcome.is_partial
    own = exc.own_exception() if isinstance(exc, CheckpointException) else exc
    entry["cause_is_own"] = outcome.__cause__ is own
    pairs = outcome.failures
    kept = pairs.get(private.rank, (None, None))[0]
    entry["alive"] = own is None or kept is own
    if outcome.is_partial and not entry["same"]:
        entry["others_are_told"] = all(
            isinstance(pair[0], RemoteError) and not pair[1]
            for rank, pair in pairs.items()
            if rank != private.rank
        )
    return entry


def check(ledgers: list[list[dict[str, Any]]], logs: list[Any]) -> None:
    """Hold what the ranks saw against the account of each agreement."""
    assert all(log == logs[0] for log in logs), f"top statements end apart: {logs}"
    n_agreements = {len(ledger) for ledger in ledgers}
    assert len(n_agreements) == 1, f"not as many agreements: {n_agreements}"
    leaves: dict[int, dict[int, set[str]]] = {}  # of each token
    for number, entries in enumerate(zip(*ledgers, strict=True)):
        try:
            _check_agreement(list(entries), leaves)
        except AssertionError as error:
            text = "\n".join(f"  rank {r}: {entry}" for r, entry in enumerate(entries))
            error.add_note(f"at agreement {number}:\n{text}")
            raise


def _expected(
    brought: list[str | None], tokens: list[int], leaves: dict[int, dict[int, set[str]]]
) -> dict[int, set[str]]:
    """Return the ranks that an outcome must name, with what it may say of each."""
    if not any(brought):
        return {rank: {"ranks met at different steps:"} for rank in range(len(brought))}
    expected: dict[int, set[str]] = {}
    for token in set(tokens) - {0}:
        for rank, texts in leaves[token].items():
            expected.setdefault(rank, set()).update(texts)
    for rank, (text, token) in enumerate(zip(brought, tokens, strict=True)):
        if text is not None and not token:
            expected[rank] = {text}
    return expected


def _check_agreement(
    entries: list[dict[str, Any]], leaves: dict[int, dict[int, set[str]]]
) -> None:
    brought = [entry["brought"] for entry in entries]
    outcomes = [entry["outcome"] for entry in entries]
    assert not any(entry["touched"] for entry in entries), "exception not untouched"
    if outcomes[0] is None:
        assert not any(outcomes), "some go on"
        assert not any(brought), "a failure is lost"
        return
    if all(entry["refused"] for entry in entries):
        assert all(entry["same"] for entry in entries), "each keeps its own error"
        return
    tokens = [entry["token"] for entry in entries]
    assert all(outcome == outcomes[0] for outcome in outcomes), "outcomes differ"
    assert not any(entry["nested"] for entry in entries), "a report in a report"
    if all(tokens) and len(set(tokens)) == 1:
        assert all(entry["same"] for entry in entries), "an outcome is wrapped again"
        return
    expected = _expected(brought, tokens, leaves)
    ordinary = all(entry["ordinary"] for entry in entries)
    assert outcomes[0]["ranks"] == sorted(expected), f"not {sorted(expected)}"
    assert outcomes[0]["type"] == (
        "Checkpoint" + ("Error" if ordinary else "Exception")
    )
    whole = [entry for entry in entries if not entry["partial"]]
    assert len(whole) in (1, len(entries)), "one rank or all have the whole report"
    for entry in entries:
        assert not entry["same"], "an outcome is taken for another"
        assert entry["cause_is_own"], "the cause is not the rank's own exception"
        assert entry["alive"], "the rank's own exception is a copy"
        assert entry.get("others_are_told", True), "the others' are no RemoteError"
        for rank, text in entry["told"].items():
            assert text in expected[rank], f"of rank {rank}: {text!r}"
    leaves[outcomes[0]["token"]] = {
        rank: {entry["told"][rank] for entry in entries} for rank in expected
    }
