"""Generated exception classes: nothing raises on either side, nothing is lost."""

from __future__ import annotations

import contextlib
import threading
import traceback

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from allraise import CheckpointException, wrap_exception
from allraise.bodies import MAX_BODY_BYTES
from allraise.bundle import Bundle
from allraise.capture import MAX_MESSAGE_CHARS, capture
from allraise.chains import type_name_of
from allraise.rebuild import rebuild
from allraise.render import format_block
from allraise.report import Report

BASES = (
    Exception,
    BaseException,
    ValueError,
    KeyError,
    OSError,
    FileNotFoundError,
    BlockingIOError,
    ImportError,
    AttributeError,
    NameError,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    SyntaxError,
    UnicodeError,
    RuntimeError,
    RecursionError,
    Warning,
    AssertionError,
)


def plain(self, *args):
    super(type(self), self).__init__(*args)


def keyword_only(self, *, value=None):
    self.value = value


def two_needed(self, first, second):
    self.first, self.second = first, second


def clears_args(self, *args):
    self.args = ()


def raising(error):
    def hook(*_args, **_options):
        raise type(error)(*error.args)  # a new one: it collects frames

    return hook


def answering(value):
    return lambda *_args, **_options: value


ERRORS = st.sampled_from(
    [RuntimeError("no"), KeyboardInterrupt(), SystemExit(0), GeneratorExit()]
)
ANSWERS = st.sampled_from([None, 42, "text", (), (dict, ()), NotImplemented, object()])
HOOK_NAMES = st.sampled_from(
    [
        "__str__",
        "__repr__",
        "__reduce__",
        "__reduce_ex__",
        "__getstate__",
        "__setstate__",
        "__getattr__",
        "__bool__",
        "__len__",
        "__eq__",
        "__hash__",
        "__iter__",
        "__format__",
        "__dir__",
        "__copy__",
        "__deepcopy__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__setattr__",
        "__delattr__",
        "__getattribute__",
        "__call__",
        "__lt__",
        "__contains__",
        "__index__",
        "add_note",
        "with_traceback",
        "_allraise_brief",
    ]
)
PROPERTY_NAMES = st.sampled_from(
    [
        "args",
        "__notes__",
        "__cause__",
        "__context__",
        "__suppress_context__",
        "__traceback__",
        "__dict__",
        "__class__",
        "__module__",
        "message",
        "code",
        "value",
        "name",
        "errno",
        "filename",
        "exceptions",
    ]
)
HOOKS = st.dictionaries(
    HOOK_NAMES,
    ERRORS.map(raising) | ANSWERS.map(answering),
    max_size=4,
)
PROPERTIES = st.dictionaries(
    PROPERTY_NAMES,
    (ERRORS.map(raising) | ANSWERS.map(answering)).map(property),
    max_size=2,
)
CLASS_VALUES = st.dictionaries(PROPERTY_NAMES, ANSWERS, max_size=1)
PAYLOADS = st.recursive(
    st.none()
    | st.integers()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
    | st.floats()
    | st.builds(threading.Lock)
    | st.builds(lambda: lambda: 0)
    | st.builds(lambda: bytes(2 * MAX_BODY_BYTES))
    | st.builds(lambda: "x" * (2 * MAX_MESSAGE_CHARS))
    | st.builds(ValueError, st.text(max_size=5))
    | st.builds(object),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=4,
)


class Box:
    """Keeps hypothesis from asking the exception anything."""

    def __init__(self, exc):
        self.exc = exc

    def __repr__(self):
        return f"Box of a {type_name_of(type(self.exc))}"

    def _repr_pretty_(self, printer, _cycle):
        printer.text(repr(self))


@st.composite
def classes(draw):
    base = draw(st.sampled_from(BASES))
    body = {
        "__init__": draw(
            st.sampled_from([plain, keyword_only, two_needed, clears_args])
        )
    }
    body |= draw(CLASS_VALUES) | draw(PROPERTIES) | draw(HOOKS)
    if draw(st.booleans()):
        body["__slots__"] = ("slotted",)
    name = draw(st.sampled_from(["MadeError", "Made\nError", "Ошибка", "\udcff"]))
    try:
        made = type(name.encode(errors="ignore").decode() or "E", (base,), body)
    except (TypeError, ValueError):  # what Python itself refuses
        made = type("MadeError", (base,), {})
    if draw(st.booleans()) and "__module__" not in body:
        made.__module__ = __name__
        globals()[made.__qualname__] = made  # so that it can be found
    return made


@st.composite
def exceptions(draw, depth=2):
    """Make one without its constructor, which has had its say in the class."""
    cls = draw(classes())
    args = tuple(draw(st.lists(PAYLOADS, max_size=3)))
    base = next(b for b in cls.__mro__ if b in BASES)
    try:
        exc = cls(*args)
    except BaseException:
        exc = base.__new__(cls, *args)
    attributes = BaseException.__dict__["__dict__"].__get__(exc)
    attributes |= draw(
        st.dictionaries(st.sampled_from(["a", "b", "__notes__"]), PAYLOADS, max_size=2)
    )
    if depth:
        for link in ("__cause__", "__context__"):
            if draw(st.booleans()):
                value = draw(exceptions(depth=depth - 1))
                BaseException.__dict__[link].__set__(exc, value)
    if draw(st.integers(0, 9)) == 0:
        BaseException.__dict__["__context__"].__set__(exc, exc)
    if depth and draw(st.integers(0, 4)) == 0:
        other = draw(exceptions(depth=depth - 1))
        # Python asks each member for its class, which may raise anything.
        with contextlib.suppress(BaseException):
            exc = BaseExceptionGroup("group", [exc, other])
    return exc


@st.composite
def boxes(draw):
    return Box(draw(exceptions()))


def raised(exc):
    try:
        raise exc
    except BaseException as caught:
        return caught


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(boxes())
def test_nothing_raises_and_nothing_is_lost(box):
    exc = raised(box.exc)
    tb = BaseException.__dict__["__traceback__"].__get__(exc)
    frames = [
        (f.f_code.co_filename, n, f.f_code.co_name) for f, n in traceback.walk_tb(tb)
    ]

    data = Bundle.of(3, capture(exc)).encode()
    assert len(data) < 20 * MAX_BODY_BYTES
    bundle = Bundle.decode(data)
    ((ranks, record),) = bundle.records()

    assert list(ranks) == [3]
    assert record.links[0].type_name == type_name_of(type(exc))
    try:
        message = str(exc)
    except BaseException:
        message = "<exception str() failed>"
    if "_allraise_brief" not in type(exc).__dict__:
        n = MAX_MESSAGE_CHARS
        same = record.links[0].message[:n] == message[:n]
        assert same, (record.links[0].message[:99], message[:99])
    made, summary = rebuild(record)
    assert [(f.filename, f.lineno, f.name) for f in summary] == frames
    assert isinstance(made, BaseException)
    block = format_block(record, 3)
    assert block.count("(RANK 3)") == 1
    assert block.encode()
    report = Report("step", bundle, 4)
    assert report.text("groups").encode()
    assert report.text("ranks").encode()

    constructed = CheckpointException("step", {3: wrap_exception(exc)})
    assert "(RANK 3)" in str(constructed)
    assert len(constructed.exception_group().exceptions) == 1
