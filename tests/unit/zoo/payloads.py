"""Exceptions that hold what cannot travel, or too much of it."""

from __future__ import annotations

import array
import contextvars
import io
import math
import socket
import sys
import tempfile
import threading
import types
import weakref
from collections import namedtuple
from pathlib import Path

import numpy as np

from unit.zoo.case import TAMED, TEXT, case, cases_of

MEGABYTE = 1024 * 1024


class HoldingError(Exception):
    def __init__(self, text, held):
        super().__init__(text)
        self.held = held


def holding(make):
    return lambda: HoldingError("it holds something", make())


def closed_file():
    with tempfile.TemporaryFile() as file:
        return file


def closed_socket():
    with socket.socket() as made:
        return made


def closed_coroutine():
    async def work():
        pass

    made = work()
    made.close()
    return made


def nested_list(depth):
    made: list = []
    for _ in range(depth):
        made = [made]
    return made


def some_traceback():
    try:
        msg = "inner"
        raise KeyError(msg)
    except KeyError as exc:
        return exc.__traceback__


def loaded_lock_error():
    return HoldingError("inner with a lock", threading.Lock())


def held_by_itself():
    made = HoldingError("holds itself", None)
    made.held = made
    return made


def in_its_own_args():
    made = ValueError("first")
    made.args = ("first", made)
    return made


def two_that_hold_each_other():
    one, other = HoldingError("one", None), HoldingError("other", None)
    one.held, other.held = other, one
    return one


def in_a_dict_of_its_own():
    made = HoldingError("in a cycle of containers", None)
    made.held = {"list": [made]}
    return made


Point = namedtuple("Point", "x y")  # noqa: PYI024


class ReprRaises:
    def __reduce__(self):
        raise RuntimeError

    def __repr__(self):
        raise ValueError


class ReprInterrupts:
    def __reduce__(self):
        raise RuntimeError

    def __repr__(self):
        raise KeyboardInterrupt


class ReprExits:
    def __reduce__(self):
        raise RuntimeError

    def __repr__(self):
        raise SystemExit(3)


class ReduceExits:
    def __reduce__(self):
        raise SystemExit(0)


class ReduceInterrupts:
    def __reduce__(self):
        raise KeyboardInterrupt


class ReduceReturnsText:
    def __reduce__(self):
        return "no_such_name"


class LyingClass:
    __class__ = property(lambda self: ValueError)


class ClassRaises:
    @property
    def __class__(self):
        msg = "no class"
        raise RuntimeError(msg)

    def __reduce_ex__(self, protocol):
        msg = "no pickle"
        raise RuntimeError(msg)


class ComparesToAnArray:
    def __eq__(self, other):
        return np.array([True, False])

    __hash__ = None


cases_of(
    {
        "holds_a_lock": (holding(threading.Lock), "it holds something"),
        "holds_an_rlock": (holding(threading.RLock), "it holds something"),
        "holds_a_file": (holding(closed_file), "it holds something"),
        "holds_a_socket": (holding(closed_socket), "it holds something"),
        "holds_a_generator": (holding(lambda: (i for i in ())), "it holds something"),
        "holds_a_lambda": (holding(lambda: lambda: 0), "it holds something"),
        "holds_a_thread": (holding(threading.Thread), "it holds something"),
        "holds_a_weakref": (holding(lambda: weakref.ref(HoldingError)), "it holds"),
        "holds_a_module": (holding(lambda: sys), "it holds something"),
        "holds_a_frame": (holding(sys._getframe), "it holds something"),
        "holds_a_memoryview": (holding(lambda: memoryview(b"abc")), "it holds"),
        "holds_a_coroutine": (holding(closed_coroutine), "it holds something"),
        "holds_a_code_object": (holding(lambda: holding.__code__), "it holds"),
        "holds_a_mapping_proxy": (
            holding(lambda: types.MappingProxyType({})),
            "it holds something",
        ),
        "holds_a_context_variable": (
            holding(lambda: contextvars.ContextVar("step")),
            "it holds something",
        ),
        "holds_a_local_class": (holding(lambda: type("Here", (), {})), "it holds"),
        "holds_a_dict_view": (holding({}.keys), "it holds something"),
        "holds_a_list_5000_deep": (holding(lambda: nested_list(5000)), "it holds"),
        "holds_what_raises_in_repr": (holding(ReprRaises), "it holds something"),
        "holds_what_interrupts_in_repr": (holding(ReprInterrupts), "it holds"),
        "holds_what_exits_in_repr": (holding(ReprExits), "it holds something"),
        "holds_what_exits_in_reduce": (holding(ReduceExits), "it holds something"),
        "holds_what_interrupts_in_reduce": (holding(ReduceInterrupts), "it holds"),
        "holds_what_reduces_to_a_name": (holding(ReduceReturnsText), "it holds"),
        "holds_what_lies_about_its_class": (holding(LyingClass), "it holds"),
        "holds_what_has_no_class": (holding(ClassRaises), "it holds something"),
        "holds_50_megabytes": (holding(lambda: bytes(50 * MEGABYTE)), "it holds"),
        "holds_a_big_array": (
            holding(lambda: np.zeros(50 * MEGABYTE // 8)),
            "it holds something",
        ),
        "lock_in_the_middle_of_args": (
            lambda: ValueError("before", threading.Lock(), "after"),
            "'before', <unlocked _thread.lock object",
        ),
    },
    TAMED,
)
cases_of(
    {
        "holds_an_array": (holding(lambda: np.arange(5.0)), "it holds something"),
        "holds_a_python_array": (holding(lambda: array.array("d", [1.0])), "it holds"),
        "holds_a_buffer": (holding(lambda: bytearray(b"abc")), "it holds something"),
        "holds_a_path": (holding(lambda: Path("/scratch")), "it holds something"),
        "holds_a_named_tuple": (holding(lambda: Point(1, 2)), "it holds something"),
        "holds_not_a_number": (holding(lambda: math.nan), "it holds something"),
        "holds_singletons": (holding(lambda: [..., NotImplemented, None]), "it holds"),
        "holds_an_exception": (holding(lambda: KeyError("inner")), "it holds"),
        "holds_an_exception_with_a_lock": (holding(loaded_lock_error), "it holds"),
        "holds_a_class": (holding(lambda: HoldingError), "it holds something"),
        "holds_a_number_of_many_digits": (holding(lambda: 1 << 50000), "it holds"),
        "holds_what_compares_to_an_array": (holding(ComparesToAnArray), "it holds"),
        "holds_a_text_buffer": (holding(lambda: io.StringIO("abc")), "it holds"),
        "holds_a_traceback": (holding(some_traceback), "it holds something"),
        "holds_itself": (held_by_itself, "holds itself"),
        "holds_another_that_holds_it": (two_that_hold_each_other, "one"),
        "holds_itself_in_containers": (in_a_dict_of_its_own, "in a cycle"),
        "a_number_too_long_for_text": (
            lambda: OverflowError(10**5000),
            "<exception str() failed>",
        ),
    }
)
cases_of({"args_hold_itself": (in_its_own_args, "'first', ")})


@case(TEXT, says="ValueError: (", exact=False)
def a_hundred_thousand_args():
    raise ValueError(*range(100_000))


@case(TAMED, says="noted")
def lock_among_the_notes():
    exc = ValueError("noted")
    exc.__notes__ = ["a note", threading.Lock()]
    raise exc


@case(TAMED, says="many large parts")
def many_parts_each_below_the_cap():
    exc = HoldingError("many large parts", None)
    for i in range(100):
        setattr(exc, f"part_{i}", bytes(10_000))
    raise exc


@case(TEXT, says="too many parts")
def parts_that_even_tamed_pass_the_cap():
    exc = HoldingError("too many parts", None)
    for i in range(20_000):
        setattr(exc, f"part_{i}", threading.Lock())
    raise exc
