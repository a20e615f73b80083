"""Causes, contexts, groups and notes."""

from __future__ import annotations

import threading

from unit.zoo.case import TAMED, case, cases_of


class TitledGroup(ExceptionGroup):
    def __new__(cls, title, failures, *, extra):
        made = super().__new__(cls, title, failures)
        made.extra = extra
        return made

    def __init__(self, title, failures, *, extra):
        pass

    def derive(self, excs):
        msg = "not divisible"
        raise RuntimeError(msg)


def raised(exc):
    try:
        raise exc
    except BaseException as caught:
        return caught


@case(says="direct cause", portable=True)
def cause():
    try:
        msg = "the cause"
        raise KeyError(msg)
    except KeyError as exc:
        msg = "the effect"
        raise ValueError(msg) from exc


@case(says="During handling of the above", portable=True)
def context():
    try:
        msg = "the first"
        raise KeyError(msg)
    except KeyError:
        msg = "the second"
        raise ValueError(msg)  # noqa: B904 that is the case


@case(says="alone", portable=True)
def suppressed_context():
    try:
        msg = "never seen"
        raise KeyError(msg)
    except KeyError:
        msg = "alone"
        raise ValueError(msg) from None


@case(says="two", portable=True)
def context_cycle():
    one, two = raised(ValueError("one")), raised(KeyError("two"))
    one.__context__, two.__context__ = two, one
    raise two


@case(says="its own cause", portable=True)
def cause_is_itself():
    exc = ValueError("its own cause")
    raise exc from exc


@case(says="end of the cycle", portable=True)
def cause_cycle():
    one, two = ValueError("start"), KeyError("end of the cycle")
    one.__cause__, two.__cause__ = two, one
    raise two


@case(says="link 999", exact=False)
def a_thousand_causes():
    exc = ValueError("link 0")
    for i in range(1, 1000):
        following = ValueError(f"link {i}")
        following.__cause__ = exc
        exc = following
    raise exc


@case(says="try 299", exact=False)
def three_hundred_retries():
    exc: BaseException | None = None
    for i in range(300):
        try:
            try:
                if exc is not None:
                    raise exc
            finally:
                msg = f"try {i}"
                raise OSError(msg)
        except OSError as caught:
            exc = caught
    raise exc


@case(TAMED, says="good error")
def cause_that_cannot_be_pickled():
    bad = ValueError("bad cause", threading.Lock())
    msg = "good error"
    raise KeyError(msg) from bad


@case(TAMED, says="good one")
def cause_of_a_local_class():
    class LocalCauseError(Exception):
        pass

    msg = "good one"
    raise KeyError(msg) from LocalCauseError("local cause")


@case(says="the second note", portable=True)
def notes():
    exc = ValueError("noted")
    exc.add_note("the first note\non two lines")
    exc.add_note("the second note")
    raise exc


@case(says="odd notes")
def notes_that_are_no_text():
    exc = ValueError("odd notes")
    exc.__notes__ = [42, None, b"bytes"]
    raise exc


@case(says="many notes", portable=True)
def a_thousand_notes():
    exc = ValueError("many notes")
    for i in range(1000):
        exc.add_note(f"note {i}")
    raise exc


@case(TAMED, says="long note", exact=False)
def a_note_of_10_megabytes():
    exc = ValueError("long note")
    exc.add_note("x" * (10 * 1024 * 1024))
    raise exc


def many_leaves():
    return ExceptionGroup("many", [raised(ValueError(f"leaf {i}")) for i in range(500)])


def deep_group():
    group: Exception = raised(ValueError("at the bottom"))
    for _ in range(100):
        group = ExceptionGroup("level", [group])
    return group


def shared_leaf():
    leaf = raised(ValueError("shared"))
    return ExceptionGroup("same leaf", [leaf, ExceptionGroup("within", [leaf])])


def leaf_with_a_cause():
    leaf = raised(ValueError("leaf"))
    leaf.__cause__ = raised(KeyError("cause of a leaf"))
    return ExceptionGroup("with causes", [leaf])


def group_among_the_causes():
    exc = RuntimeError("after the group")
    exc.__cause__ = raised(ExceptionGroup("first", [raised(ValueError("leaf"))]))
    return exc


def group_in_its_own_context():
    leaf = raised(ValueError("leaf of a cycle"))
    group = ExceptionGroup("a cycle", [leaf])
    leaf.__context__ = group
    return group


class LeafOfOwnError(Exception):
    def __init__(self, *, key):
        super().__init__(f"key {key}")
        self.key = key


cases_of(
    {
        "group": (
            lambda: ExceptionGroup("two", [raised(ValueError("a")), KeyError("b")]),
            "two (2 sub-exceptions)",
        ),
        "group_of_base_exceptions": (
            lambda: BaseExceptionGroup("base", [KeyboardInterrupt(), SystemExit(3)]),
            "base (2 sub-exceptions)",
        ),
        "group_in_a_group": (
            lambda: ExceptionGroup("o", [ExceptionGroup("i", [ValueError("leaf")])]),
            "leaf",
        ),
        "group_member_twice": (shared_leaf, "shared"),
        "group_member_has_a_cause": (leaf_with_a_cause, "cause of a leaf"),
        "group_among_the_causes": (group_among_the_causes, "after the group"),
    },
    portable=True,
)
cases_of(
    {
        "group_with_own_new": (
            lambda: TitledGroup("titled", [ValueError("leaf")], extra=1),
            "titled (1 sub-exception)",
        ),
        "group_leaf_with_own_init": (
            lambda: ExceptionGroup("own", [LeafOfOwnError(key=5)]),
            "key 5",
        ),
    }
)
cases_of({"group_of_500": (many_leaves, "and 485 more exceptions")})
cases_of(
    {
        "group_leaf_that_cannot_be_pickled": (
            lambda: ExceptionGroup("g", [ValueError(threading.Lock()), KeyError("k")]),
            "KeyError: 'k'",
        ),
        "group_leaf_of_a_local_class": (
            lambda: ExceptionGroup("g", [type("Gone", (Exception,), {})("gone")]),
            "Gone: gone",
        ),
        "group_in_its_own_context": (group_in_its_own_context, "leaf of a cycle"),
        "group_100_deep": (deep_group, "level (1 sub-exception)"),
    },
    TAMED,
)
