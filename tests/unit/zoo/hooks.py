"""Hooks that raise, lie, exit, interrupt or recurse."""

from __future__ import annotations

import os
import time

from unit.zoo.case import INTACT, TEXT, ZOO, Case, cases_of


def raising(error):
    def hook(*_args, **_options):
        raise error

    return hook


# Not with *args: CPython 3.13.0 has no end to that recursion, and dies of it.
def recursing(self):
    return recursing(self)


def recursing_ex(self, protocol):
    return recursing_ex(self, protocol)


def hooked(name, **hooks):
    """Make a class of this module with hooks."""
    made = type(name, (Exception,), {"__module__": __name__, **hooks})
    globals()[name] = made
    return made


def other_object(*_args):
    return dict, ()


HOOKS = {
    # Pickling hooks: none of them runs.
    "reduce_raises": {"__reduce__": raising(RuntimeError("no"))},
    "reduce_returns_text": {"__reduce__": lambda self: "some_name"},
    "reduce_returns_garbage": {"__reduce__": lambda self: (1, 2, 3, 4, 5, 6, 7)},
    "reduce_exits": {"__reduce__": raising(SystemExit(0))},
    "reduce_interrupts": {"__reduce__": raising(KeyboardInterrupt())},
    "reduce_ex_raises": {"__reduce_ex__": raising(RuntimeError("no"))},
    "reduce_ex_recurses": {"__reduce_ex__": recursing_ex},
    "getstate_raises": {"__getstate__": raising(RuntimeError("no"))},
    "setstate_raises": {"__setstate__": raising(RuntimeError("no"))},
    "setstate_exits": {"__setstate__": raising(SystemExit(0))},
    "unpickles_to_no_exception": {"__reduce__": other_object},
    "unpickling_raises": {"__reduce__": lambda self: (raising(KeyError(1)), ())},
    "unpickling_exits": {"__reduce__": lambda self: (exit_now, ())},
    "unpickling_ends_the_process": {"__reduce__": lambda self: (os._exit, (9,))},
    "unpickling_sleeps": {"__reduce__": lambda self: (time.sleep, (3600,))},
    "copy_raises": {"__copy__": raising(RuntimeError("no"))},
    "getnewargs_raises": {"__getnewargs__": raising(RuntimeError("no"))},
    # Comparison, truth, attributes.
    "eq_raises": {
        "__eq__": raising(RuntimeError("no")),
        "__hash__": Exception.__hash__,
    },
    "hash_raises": {"__hash__": raising(RuntimeError("no"))},
    "hash_interrupts": {"__hash__": raising(KeyboardInterrupt())},
    "unhashable": {"__hash__": None},
    "is_false": {"__bool__": lambda self: False},
    "iter_raises": {"__iter__": raising(RuntimeError("no"))},
    "format_raises": {"__format__": raising(RuntimeError("no"))},
    "dir_raises": {"__dir__": raising(RuntimeError("no"))},
    "add_note_raises": {"add_note": raising(RuntimeError("no"))},
    "with_traceback_raises": {"with_traceback": raising(RuntimeError("no"))},
}


def exit_now():
    raise SystemExit(0)


def add(name, hooks, outcome=INTACT, says="the message", *, exact=True):
    made = hooked(f"{name.title().replace('_', '')}Error", **hooks)

    def run():
        msg = "the message"
        raise made(msg)

    ZOO[name] = Case(name, run, outcome, says, exact=exact)


for hook_name, hook_map in HOOKS.items():
    add(hook_name, hook_map)

# Python's own traceback module gives up on these, or says so itself.
FAILED = "<exception str() failed>"
for hook_name, hook_map, hook_says in (
    ("str_raises", {"__str__": raising(RuntimeError("no"))}, FAILED),
    ("str_is_no_text", {"__str__": lambda self: 42}, FAILED),
    ("str_recurses", {"__str__": recursing}, FAILED),
    ("str_exits", {"__str__": raising(SystemExit(0))}, FAILED),
    ("str_interrupts", {"__str__": raising(KeyboardInterrupt())}, FAILED),
    ("str_ends_a_generator", {"__str__": raising(GeneratorExit())}, FAILED),
    ("getattr_raises", {"__getattr__": raising(RuntimeError("no"))}, "the message"),
    (
        "getattr_interrupts",
        {"__getattr__": raising(KeyboardInterrupt())},
        "the message",
    ),
    ("getattribute_raises", {"__getattribute__": raising(ValueError("no"))}, ""),
    ("getattribute_exits", {"__getattribute__": raising(SystemExit(1))}, ""),
    ("getattr_answers_all", {"__getattr__": lambda self, name: name}, "the message"),
    ("len_raises", {"__len__": raising(RuntimeError("no"))}, "the message"),
    ("bool_raises", {"__bool__": raising(RuntimeError("no"))}, "the message"),
    ("bool_interrupts", {"__bool__": raising(KeyboardInterrupt())}, "the message"),
    (
        "notes_raise",
        {"__notes__": property(raising(RuntimeError("no")))},
        "the message",
    ),
    ("notes_are_a_number", {"__notes__": 42}, "the message"),
    ("cause_raises", {"__cause__": property(raising(RuntimeError("no")))}, ""),
    ("context_raises", {"__context__": property(raising(RuntimeError("no")))}, ""),
    ("cause_is_a_number", {"__cause__": 42}, "the message"),
    ("context_is_text", {"__context__": "a text"}, "the message"),
    ("suppress_raises", {"__suppress_context__": property(raising(KeyError(1)))}, ""),
    ("traceback_raises", {"__traceback__": property(raising(KeyError(1)))}, ""),
    ("brief_raises", {"_allraise_brief": raising(KeyboardInterrupt())}, "the message"),
    ("brief_is_a_number", {"_allraise_brief": lambda self: 42}, "the message"),
):
    add(hook_name, hook_map, INTACT, hook_says, exact=False)


class TalkativeError(Exception):
    """Its text is another each time it is asked for."""

    n_asked = 0

    def __str__(self):
        TalkativeError.n_asked += 1
        return f"asked {TalkativeError.n_asked} times"


class ProcessBoundError(Exception):
    """Its text is that of the process that asks."""

    def __str__(self):
        return f"process {os.getpid()}"


class WrongLengthStr(str):
    __slots__ = ()

    def __len__(self):
        return 3

    def __str__(self):
        raise RuntimeError


cases_of(
    {
        "str_changes": (TalkativeError, "asked "),
        "str_is_a_subclass": (lambda: ValueError(WrongLengthStr("text")), ""),
    },
    exact=False,
)
cases_of({"str_reads_the_process": (ProcessBoundError, f"process {os.getpid()}")})
cases_of(
    {
        "qualname_has_a_newline": (
            lambda: type("Two\nLines", (Exception,), {})("named"),
            "named",
        )
    },
    TEXT,
)
