"""A failure told by its stack's fingerprint is the same failure once it is whole."""

from __future__ import annotations

import copyreg
import gc
import linecache
import sys
import threading
import weakref
import zipfile
from types import SimpleNamespace

import pytest

from allraise import gathering
from allraise.bodies import load_exception
from allraise.bundle import Bundle
from allraise.capture import MAX_MESSAGE_CHARS, capture
from allraise.native import MAX_CHARS, dump_native
from allraise.outline import outline_of
from allraise.record import Link, Record, is_outline, pack, pack_outline, unpack
from unit.zoo import ZOO

TEXT = 'a "quoted" \\ text,\nof two lines \x00 \ud800 \U0001f600 ä'


def caught(raise_it):
    try:
        raise_it()
    except BaseException as exc:
        return exc
    raise AssertionError


def fall(exc, depth=3):
    if depth:
        fall(exc, depth - 1)
    raise exc


def failed(exc):
    return caught(lambda: fall(exc))


def whole_of(outline):
    """Return the packed record that an outline leads to."""
    packed = outline.packed
    return packed._replace(shape=outline.whole()[packed.shape])


def without_time(packed):
    return packed._replace(origin=(*packed.origin[:2], 0.0))


# It has another text each time that it is asked.
@pytest.mark.parametrize("name", [name for name in ZOO if name != "str_changes"])
def test_an_outline_leads_to_what_capture_makes(name):
    exc = ZOO[name].catch()
    outline = outline_of(exc, "failure")
    if outline is None:
        return  # it is taken down whole; how many are, is another test
    expected = pack(capture(exc))
    made = without_time(whole_of(outline))
    # An object may be pickled twice into other bytes: a set, say.
    assert [*map(bool, made.bodies)] == [*map(bool, expected.bodies)]
    assert made._replace(bodies=()) == without_time(expected)._replace(bodies=())


def test_many_of_the_zoo_have_an_outline():
    kinds = [outline_of(case.catch(), "failure") is None for case in ZOO.values()]
    assert kinds.count(False) > 60
    assert kinds.count(True) > 30


@pytest.mark.parametrize("kind", ["failure", "interrupted"])
@pytest.mark.parametrize("message", ["", TEXT])
def test_the_bytes_are_those_of_a_record(kind, message):
    text, name = TEXT, f"m.<locals>.{TEXT}"
    link = Link(name, message, (f"{name}: {text}\n" if message else f"{name}\n",))
    shape, variant = pack_outline(kind, name, message, text, "ff")
    packed = pack(Record((link,), (b"",), (text,), kind=kind))
    assert variant == packed.variant
    assert shape == packed.shape[:-1] + b', "ff"]'
    assert unpack(packed._replace(shape=shape)) == unpack(packed)
    assert is_outline(shape)
    assert not is_outline(packed.shape)
    assert not is_outline(b"damaged")


class TestFingerprint:
    @staticmethod
    def of(exc):
        return outline_of(exc, "failure").packed.shape

    def test_is_the_same_for_the_same_frames_with_other_messages(self):
        first, second = (self.of(failed(OSError(28, "full", f"/{n}"))) for n in "ab")
        assert first == second

    def test_differs_by_type(self):
        first, second = (self.of(failed(cls("x"))) for cls in (ValueError, KeyError))
        assert first != second

    def test_differs_by_kind(self):
        exc = failed(ValueError("x"))
        other = outline_of(exc, "interrupted").packed.shape
        assert other != self.of(exc)

    def test_differs_by_depth(self):
        first, second = (
            self.of(caught(lambda n=n: fall(ValueError("x"), n))) for n in (2, 3)
        )
        assert first != second

    def test_differs_by_the_place_within_a_line(self):
        def one_or_other(n):
            return (int(n) if n else 0) or int("x") + int("y")

        first, second = (
            self.of(caught(lambda n=n: one_or_other(n))) for n in ("x", "")
        )
        assert first != second

    def test_differs_by_another_version_of_the_source(self, tmp_path):
        found = []
        for body in ("raise ValueError('x')", "raise ValueError( 'x')"):
            space = {}
            source = f"def f():\n    {body}\n"
            exec(compile(source, str(tmp_path / "job.py"), "exec"), space)
            found.append(self.of(caught(space["f"])))
        assert found[0] != found[1]


@pytest.mark.parametrize(
    "make",
    [
        lambda: NameError("name 'x' is not defined"),
        lambda: AttributeError("no y"),
        lambda: ImportError("no z"),
        lambda: SyntaxError("bad"),
        lambda: ExceptionGroup("both", [ValueError("a"), KeyError("b")]),
        lambda: ValueError("x" * (MAX_MESSAGE_CHARS + 1)),
    ],
    ids=["name", "attribute", "import", "syntax", "group", "long"],
)
def test_what_python_tells_more_of_is_taken_down_whole(make):
    assert outline_of(failed(make()), "failure") is None


def test_a_failure_that_does_not_stand_alone_is_taken_down_whole():
    def with_cause():
        raise ValueError("x") from KeyError("y")

    def with_context():
        try:
            raise KeyError("y")
        except KeyError:
            raise ValueError("x")  # noqa: B904 that is the case

    def without_context():
        try:
            raise KeyError("y")
        except KeyError:
            raise ValueError("x") from None

    noted = failed(ValueError("x"))
    noted.add_note("of step 3")
    for exc in (caught(with_cause), caught(with_context), noted, ValueError("bare")):
        assert outline_of(exc, "failure") is None
    assert outline_of(caught(without_context), "failure") is not None


def test_code_that_is_in_no_file_is_taken_down_whole():
    exc = caught(lambda: exec("1 / 0", {}))
    assert outline_of(exc, "failure") is None


def test_a_limit_of_tracebacks_is_obeyed(monkeypatch):
    exc = failed(ValueError("x"))
    monkeypatch.setattr(sys, "tracebacklimit", 1, raising=False)
    assert outline_of(exc, "failure") is None
    assert len(capture(exc).links[0].frames) == 1


def test_source_in_an_archive_is_found_once_the_frames_are_gone(tmp_path, monkeypatch):
    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped_job.py", "def run():\n    raise ValueError('zipped')\n")
    monkeypatch.syspath_prepend(str(archive))
    import zipped_job

    exc = caught(zipped_job.run)
    linecache.clearcache()
    outline = outline_of(exc, "failure")
    expected = capture(exc).links[0].frames
    linecache.clearcache()
    outline = outline_of(exc, "failure")
    del exc
    del sys.modules["zipped_job"], zipped_job
    frames = unpack(whole_of(outline)).links[0].frames
    assert frames == expected
    assert frames[-1].source.strip() == "raise ValueError('zipped')"


def test_a_loader_that_raises_costs_the_source_alone(tmp_path):
    class Loader:
        def get_source(self, _name):
            raise KeyboardInterrupt

    path = str(tmp_path / "odd.py")
    space = {"__name__": "odd", "__loader__": Loader()}
    exec(compile("def f():\n    1 / 0\n", path, "exec"), space)
    exc = caught(space["f"])
    outline = outline_of(exc, "failure")
    frames = unpack(whole_of(outline)).links[0].frames
    assert [(f.name, f.lineno) for f in frames][-1] == ("f", 2)
    assert frames[-1].source == ""


def test_an_outline_keeps_no_local_variable_alive():
    class State:
        pass

    def write():
        state = State()
        nonlocal seen
        seen = weakref.ref(state)
        raise OSError(28, "full")

    seen = None
    exc = caught(write)
    outline = outline_of(exc, "failure")
    del exc
    gc.collect()
    assert seen() is None
    assert b"raise OSError" in whole_of(outline).shape


class TestNative:
    @pytest.mark.parametrize(
        "exc",
        [
            OSError(28, "No space left on device", "/scratch/a"),
            OSError("only text"),
            OSError(2, "mapped", "a", None, "b"),
            FileNotFoundError(2, "none", "/x"),
            PermissionError(13, "no"),
            ValueError("x", 1, 2.5, None, True),
            KeyError("k"),
            RuntimeError(),
        ],
        ids=repr,
    )
    def test_comes_back_as_it_was(self, exc):
        made = load_exception(dump_native(exc))
        assert type(made) is type(exc)
        assert made.args == exc.args
        assert str(made) == str(exc)
        if isinstance(exc, OSError):
            assert (made.errno, made.filename) == (exc.errno, exc.filename)
            assert made.filename2 == exc.filename2

    @pytest.mark.parametrize(
        "exc",
        [
            type("Mine", (ValueError,), {})("x"),
            StopIteration(3),
            SystemExit("x"),
            UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
            BlockingIOError(11, "later", 5),
            ValueError(threading),
            ValueError(("a",)),
            ValueError("x", *range(99)),
            ValueError(type("Text", (str,), {})("x")),
        ],
        ids=repr,
    )
    def test_leaves_what_may_hold_more_to_others(self, exc):
        assert dump_native(exc) == b""

    def test_leaves_long_texts_to_others(self):
        assert dump_native(ValueError("x" * MAX_CHARS)) != b""
        assert dump_native(ValueError("x" * MAX_CHARS, "y")) == b""

    def test_leaves_what_was_changed_to_others(self):
        noted, hidden, moved = ValueError("x"), ValueError("x"), OSError(28, "full")
        noted.rank = 3
        hidden.__suppress_context__ = True
        moved.strerror = "another"
        for exc in (noted, hidden, moved):
            assert dump_native(exc) == b""

    def test_asks_nobody_how_to_pickle(self, monkeypatch):
        def reducer(_exc):
            raise AssertionError

        monkeypatch.setitem(copyreg.dispatch_table, ValueError, reducer)
        assert load_exception(dump_native(ValueError("x"))).args == ("x",)


def gathered(*excs):
    """Return what a root has of outlines, and the outlines."""
    outlines = [outline_of(exc, "failure") for exc in excs]
    known = [Bundle.of_packed(r, o.packed) for r, o in enumerate(outlines)]
    return Bundle.merge(known, capped=True), outlines


def test_the_root_asks_one_rank_for_each_stack():
    excs = [failed(OSError(28, f"full {n}")) for n in range(3)]
    excs += [failed(ValueError("a")), failed(ValueError("b"))]
    bundle, _ = gathered(*excs)
    for rank, asked in ((0, (3,)), (3, (0,)), (7, (0, 3))):
        assert gathering.ranks_to_ask(SimpleNamespace(rank=rank), bundle) == asked


def test_a_stack_that_cannot_be_had_costs_itself_alone(monkeypatch):
    bundle, outlines = gathered(failed(OSError(28, "full")), failed(ValueError("x")))
    sent = []
    monkeypatch.setattr(gathering, "_send", lambda *args: sent.append(args))

    def no_room(_places):
        raise MemoryError

    monkeypatch.setattr("allraise.outline.frames_from_places", no_room)
    gathering.send_whole(SimpleNamespace(rank=1, sent=[]), outlines[1], 0)
    monkeypatch.undo()
    ((_, data, target, _),) = sent
    assert target == 0
    monkeypatch.setattr(gathering, "receive", lambda *_: data)
    private = SimpleNamespace(rank=0, comm=None)
    made = gathering.complete_outlines(private, bundle, outlines[0], (1,))
    first, second = (record for _, record in made.records())
    assert first.links[0].frames[-1].name == "fall"
    assert (second.links[0].frames, second.links[0].message) == ((), "x")


def test_beyond_the_caps_an_outline_keeps_its_type(monkeypatch):
    monkeypatch.setattr("allraise.bundle.MAX_VARIANTS", 2)
    bundle, outlines = gathered(*(failed(OSError(28, f"full {n}")) for n in range(5)))
    made = bundle.reshaped(outlines[0].whole())
    names = [record.links[0].type_name for _, record in made.records()]
    assert names == ["OSError"] * 3
    assert list(made.ranks) == [0, 1, 2, 3, 4]
