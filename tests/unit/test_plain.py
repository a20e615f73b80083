"""The compiled part is the same as that in Python, and lets go of what it holds."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from allraise import agree, guard, methods, plain, settings
from allraise.private import VECTOR_LENGTH
from unit import simulated

compiled = pytest.mark.skipif(
    not plain.IS_COMPILED, reason="allraise was installed without a compiler"
)


def in_python(code):
    """Run code in a process that has nothing compiled."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ALLRAISE_PURE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()


@pytest.mark.skipif(settings.is_pure(), reason="ALLRAISE_PURE=1 asks for none")
def test_what_was_compiled_here_is_in_use():
    """Not of another day: the tests of the compiled part would all be skipped."""
    made = list(Path(plain.__file__).parent.glob(f"_plain{EXTENSION_SUFFIXES[0]}"))
    assert bool(made) == plain.IS_COMPILED


def test_nothing_is_compiled_where_that_is_asked_for():
    code = (
        "from allraise import plain; print(plain.IS_COMPILED, plain.Block.__module__)"
    )
    assert in_python(code) == "False allraise.plain"


@pytest.mark.parametrize("text", ["yes", "2", "true"])
def test_what_is_no_answer_is_refused(text, monkeypatch):
    monkeypatch.setenv("ALLRAISE_PURE", text)
    with pytest.raises(ValueError, match="ALLRAISE_PURE must be 0 or 1, got"):
        settings.is_pure()


@compiled
@pytest.mark.parametrize("name", ["PLACE_BITS", "COUNT_BITS", "PENDING", "N_LOOKS"])
def test_numbers_are_written_down_alike(name):
    from allraise import _plain

    assert getattr(_plain, name) == getattr(plain, name)


@compiled
def test_the_vector_is_as_long_as_the_compiled_part_takes_it():
    from allraise import _plain

    assert _plain.LENGTH == VECTOR_LENGTH


@compiled
def test_a_compiled_part_of_another_day_is_left_alone():
    code = (
        "from allraise import _plain, plain; _plain.REVISION -= 1; import importlib; "
        "print(importlib.reload(plain).IS_COMPILED)"
    )
    out = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert out.strip() == "False"


@compiled
@pytest.mark.parametrize(
    "name", ["Side", "Block", "LaneState", "StandingState", "GateCount"]
)
def test_both_have_the_same_attributes(name):
    from allraise import _plain

    code = f"from allraise import plain; print(*sorted(plain.{name}.__slots__))"
    members = {
        key
        for key, value in vars(getattr(_plain, name)).items()
        if type(value).__name__ == "member_descriptor"
    }
    assert sorted(members) == in_python(code).split()


class Weak(guard):
    """A guard that can be watched."""


@pytest.mark.usefixtures("simulated_ranks")
def test_a_guard_in_a_cycle_is_collected():
    def main(comm):
        mine = Weak(comm, "step")
        with mine, mine:
            pass
        mine.itself = mine
        return weakref.ref(mine)

    ended = simulated.World(2).run(main)
    gc.collect()
    assert [found() for found in ended] == [None, None]


@pytest.mark.usefixtures("simulated_ranks")
def test_a_block_that_was_not_entered_cannot_end():
    def main(comm):
        with pytest.raises(RuntimeError, match="was not entered"):
            guard(comm, "step").__exit__(None, None, None)
        agree(None, comm)

    simulated.World(2).run(main)


@pytest.mark.usefixtures("simulated_ranks")
def test_an_end_takes_what_a_with_statement_gives():
    def main(comm):
        with guard(comm, "step") as entered, pytest.raises(TypeError):
            entered.__exit__()
        agree(None, comm)

    simulated.World(2).run(main)


class LateComm:
    """A communicator in whose gate a signal's handler has raised."""

    late = KeyboardInterrupt("late")

    def gate(self, _comm, _name):
        return self.late

    def Barrier(self):
        raise ValueError("of the collective")


@pytest.mark.parametrize(
    "gated", [pytest.param(plain.Gated, marks=compiled), None], ids=["compiled", "pure"]
)
def test_what_a_collective_raises_is_the_context_of_what_came_late(gated, monkeypatch):
    """Also where another exception is being handled, which is the context of that."""
    monkeypatch.setattr(methods, "Gated", gated)
    monkeypatch.setitem(methods.LOOKS, "Barrier", lambda _comm: None)
    barrier = methods._gated(LateComm, "Barrier")
    handled = OSError("handled")
    try:
        raise handled
    except OSError:
        with pytest.raises(KeyboardInterrupt) as caught:
            barrier(LateComm())
    error = caught.value.__context__
    assert str(error) == "of the collective"
    assert error.__context__ is handled
