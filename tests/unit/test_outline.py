"""A failure told by its stack's fingerprint is the same failure once it is whole."""

from __future__ import annotations

import copyreg
import gc
import linecache
import os
import pickle
import sys
import threading
import tracemalloc
import weakref
import zipfile
from types import SimpleNamespace

import pytest

from allraise import failing, gathering, outline, plain
from allraise.bodies import load_exception
from allraise.bundle import Bundle
from allraise.capture import MAX_MESSAGE_CHARS, capture
from allraise.native import MAX_CHARS, NATIVE, dump_native
from allraise.outline import outline_of
from allraise.own import OWN_FOLDER
from allraise.ranks import RankSet
from allraise.record import Link, Record
from allraise.summary import summarise_one
from allraise.wire import is_outline, pack, pack_outline, unpack
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
    return packed._replace(shape=outline.whole_while_others_wait()[packed.shape])


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

    def test_differs_by_the_line_of_functions_that_look_alike(self):
        table = [
            lambda: int("x"),
            lambda: int("y"),
        ]
        first, second = (self.of(caught(function)) for function in table)
        assert first != second

    def test_differs_by_the_line_in_code_that_has_no_table_of_them(self):
        """Cython makes code for each line of a function, all of it alike."""
        from numpy.random import RandomState

        draw = RandomState(1).choice
        first, second = (
            self.of(caught(lambda how=how: draw(5, **how)))
            for how in ({"p": [0.5]}, {"size": 10, "replace": False})
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


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_loader_that_raises_costs_the_source_alone(tmp_path, error):
    class Loader:
        def get_source(self, _name):
            raise error

    path = str(tmp_path / "odd.py")
    space = {"__name__": "odd", "__loader__": Loader()}
    exec(compile("def f():\n    1 / 0\n", path, "exec"), space)
    exc = caught(space["f"])
    outline = outline_of(exc, "failure")
    whole = outline.whole_while_others_wait()[outline.packed.shape]
    frames = unpack(outline.packed._replace(shape=whole)).links[0].frames
    assert [(f.name, f.lineno) for f in frames][-1] == ("f", 2)
    assert frames[-1].source == ""


def test_source_that_was_written_since_is_not_told(tmp_path):
    path = tmp_path / "job.py"
    path.write_text("def f():\n    raise ValueError('x')\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    exc = caught(space["f"])
    outline = outline_of(exc, "failure")
    for changed, expected in ((0, "raise ValueError('x')"), (5, "")):
        path.write_text(path.read_text() + "# more\n" * changed)
        os.utime(path, (outline.packed.origin[2] + changed - 1,) * 2)
        frame = unpack(whole_of(outline)).links[0].frames[-1]
        assert (frame.name, frame.lineno) == ("f", 2)
        assert frame.source.strip() == expected


def test_who_interrupts_the_look_at_a_stack_may_look_again(monkeypatch):
    outline = outline_of(failed(ValueError("x")), "failure")
    own = Bundle.of_packed(1, outline.packed)
    told = summarise_one(0, "OSError", "full")
    known = Bundle.later(lambda: failing._known(told, own, 1, outline, "rank 0"))

    def interrupt(_filename):
        raise KeyboardInterrupt

    monkeypatch.setattr(linecache, "checkcache", interrupt)
    with pytest.raises(KeyboardInterrupt):
        known.ranks  # noqa: B018 to look is to make
    monkeypatch.undo()
    assert list(known.ranks) == [0, 1]
    ((_, record),) = known.only(1).records()
    assert record.links[0].frames[-1].name == "fall"


def test_what_the_root_told_and_cannot_be_read_leaves_a_rank_its_own_stack():
    outline = outline_of(failed(ValueError("x")), "failure")
    own = Bundle.of_packed(1, outline.packed)
    ((_, record),) = failing._known(b"junk", own, 1, outline, "rank 0").records()
    assert record.links[0].frames[-1].name == "fall"


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
            ValueError(1 << 1000),
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
        noted, hidden = ValueError("x"), ValueError("x")
        noted.rank = 3
        hidden.__suppress_context__ = True
        changed = [OSError(28, "full") for _ in range(3)]
        changed[0].strerror = "another"
        changed[1].errno = 28.0
        changed[2].characters_written = 5
        for exc in (noted, hidden, *changed):
            assert dump_native(exc) == b""

    def test_asks_nobody_how_to_pickle(self, monkeypatch):
        def reducer(_exc):
            raise AssertionError

        monkeypatch.setitem(copyreg.dispatch_table, ValueError, reducer)
        assert load_exception(dump_native(ValueError("x"))).args == ("x",)


def plain_ones():
    """Return exceptions that a compiler may have told of, and a name for each."""
    deep = caught(lambda: fall(ValueError("x"), 900))
    return {
        "os_error": failed(OSError(28, "No space left on device", "/scratch/a")),
        "os_error_text": failed(OSError("only text")),
        "two_names": failed(OSError(2, "mapped", "a", None, "b")),
        "subclass": failed(FileNotFoundError(2, "none", "/x")),
        "no_arguments": failed(RuntimeError()),
        "values": failed(ValueError("x", 1, -(1 << 62), 2.5, float("nan"), None, True)),
        "key": failed(KeyError("k")),
        "text": failed(ValueError(TEXT)),
        "deep": deep,
    }


def tell_natively(exc, *, sources=None, dumps=pickle.dumps, note=None):
    return plain.tell_plainly(
        exc,
        NATIVE,
        OWN_FOLDER,
        linecache.cache if sources is None else sources,
        outline._load_hash(),
        dumps,
        note or linecache.lazycache,
    )


@pytest.mark.skipif(not plain.IS_COMPILED, reason="installed without a compiler")
class TestCompiled:
    """Where a compiler was there, C code tells the same as Python does."""

    @staticmethod
    def both(exc, monkeypatch):
        found = [outline_of(exc, "failure")]
        with monkeypatch.context() as patch:
            patch.setattr(outline, "tell_plainly", lambda *_: None)
            found.append(outline_of(exc, "failure"))
        return [None if it is None else without_time(it.packed) for it in found]

    @pytest.mark.parametrize("name", plain_ones())
    def test_tells_the_same_of_a_plain_exception(self, name, monkeypatch):
        exc = plain_ones()[name]
        compiled, slow = self.both(exc, monkeypatch)
        assert compiled == slow
        assert tell_natively(exc) is not None  # it was C that told

    @pytest.mark.parametrize("name", [name for name in ZOO if name != "str_changes"])
    def test_tells_the_same_of_a_hostile_one_or_nothing(self, name, monkeypatch):
        exc = ZOO[name].catch()
        compiled, slow = self.both(exc, monkeypatch)
        if tell_natively(exc) is not None:
            assert compiled == slow
        else:
            assert (compiled is None) == (slow is None)

    def test_tells_nothing_of_what_is_not_plain(self):
        noted, hidden, caused = (failed(ValueError("x")) for _ in range(3))
        noted.add_note("y")
        hidden.__suppress_context__ = True
        caused.__cause__ = noted
        within = caught(lambda: fall(ValueError("x")))
        within.__context__ = noted
        changed = [failed(OSError(28, "full", "/x")) for _ in range(6)]
        changed[0].strerror = "another"
        changed[1].errno = 28.0
        changed[2].characters_written = 5
        changed[3].filename = "/y"
        changed[4].args = (28, "fuller")
        changed[5].errno = 2
        others = (
            type("Mine", (ValueError,), {})("x"),
            StopIteration(3),
            ValueError(1 << 64),
            ValueError("x" * 5000),
            ValueError(("a",)),
            ValueError(*range(17)),
            ValueError(type("Text", (str,), {})("x")),
        )
        exc: BaseException
        for exc in (noted, hidden, caused, within, *changed[:3], *map(failed, others)):
            assert tell_natively(exc) is None
        assert tell_natively(ValueError("never raised")) is None
        assert tell_natively(5) is None
        # Of these it tells what they are now, or nothing.
        for exc in changed[3:]:
            told = tell_natively(exc)
            if told is not None:
                made = load_exception(told[2])
                assert (str(made), made.args) == (str(exc), exc.args)
                assert (made.errno, made.filename) == (exc.errno, exc.filename)

    def test_tells_nothing_where_only_python_knows(self, monkeypatch):
        exc = failed(ValueError("x"))
        assert tell_natively(exc) is not None
        with monkeypatch.context() as patch:
            patch.setattr(sys, "tracebacklimit", 1, raising=False)
            assert tell_natively(exc) is None
        typed = caught(lambda: exec("raise ValueError"))
        assert tell_natively(typed) is None
        own = caught(lambda: RankSet.parse("x"))
        assert tell_natively(own) is None
        assert tell_natively(caught(lambda: fall_far(ValueError("x")))) is None

    def test_tells_nothing_where_what_it_calls_fails(self, monkeypatch):
        exc = failed(ValueError("x"))

        def fail(*_arguments):
            raise MemoryError

        assert tell_natively(exc, dumps=fail) is None
        assert tell_natively(exc, dumps=lambda *_: b"") is None
        assert tell_natively(exc, sources={}, note=fail) is None
        monkeypatch.setattr(outline, "_load_hash", lambda: fail)
        assert tell_natively(exc) is None
        with pytest.raises(TypeError, match="tell_plainly takes"):
            plain.tell_plainly(exc)

    def test_notes_where_the_source_is_as_python_does(self):
        noted = []
        exc = failed(ValueError("x"))
        told = tell_natively(exc, sources={}, note=lambda *args: noted.append(args))
        assert told == tell_natively(exc)
        assert {file for file, _ in noted} == {__file__}
        assert all(known is globals() for _, known in noted)

    def test_keeps_nothing_alive(self):
        excs = [*plain_ones().values()]

        def tell_often():
            for _ in range(200):
                for exc in excs:
                    assert tell_natively(exc) is not None

        tell_often()
        tracemalloc.start()
        try:
            tell_often()
            before, _ = tracemalloc.get_traced_memory()
            tell_often()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 20_000  # one reference in each call would be more


def fall_far(exc):
    """Raise from a stack of more frames than C code tells of."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(3000)
    try:
        fall(exc, 1500)
    finally:
        sys.setrecursionlimit(limit)


def gathered(*excs):
    """Return what a root has of outlines, and the outlines."""
    outlines = [outline_of(exc, "failure") for exc in excs]
    known = [Bundle.of_packed(r, o.packed) for r, o in enumerate(outlines)]
    return Bundle.merge(known, capped=True), outlines


def root(rank):
    return SimpleNamespace(rank=rank, comm=None, sent=[], size=5)


def test_the_root_asks_one_rank_for_each_stack():
    excs = [failed(OSError(28, f"full {n}")) for n in range(3)]
    excs += [failed(ValueError("a")), failed(ValueError("b"))]
    bundle, outlines = gathered(*excs)
    ask = gathering.ranks_to_ask
    assert ask(root(0), bundle, outlines[0]) == (3,)
    assert ask(root(1), bundle, outlines[1]) == (3,)  # it has what rank 0 has
    assert ask(root(4), bundle, outlines[4]) == (0,)
    assert ask(root(7), bundle, None) == (0, 3)


def test_a_stack_that_cannot_be_had_costs_itself_alone(monkeypatch):
    excs = [failed(cls("x")) for cls in (ValueError, KeyError, TypeError)]
    bundle, outlines = gathered(*excs)
    sent = {}

    def send(private, data, target, _tag):
        assert target == 0
        sent[private.rank] = data

    def no_room(*_args):
        raise MemoryError

    monkeypatch.setattr(gathering, "_send", send)
    with monkeypatch.context() as m:
        m.setattr("allraise.outline.frames_from_places", no_room)
        gathering.send_whole(root(1), outlines[1], 0)
    with monkeypatch.context() as m:
        m.setattr(gathering, "dump_plain", no_room)
        gathering.send_whole(root(2), outlines[2], 0)
    received, whole = [], outlines[0].whole()

    def receive(_comm, rank, _tag):
        received.append(rank)
        return sent[rank]

    monkeypatch.setattr(gathering, "receive", receive)
    made = gathering.complete_outlines(root(0), bundle, whole, (1, 2))
    frames = [record.links[0].frames for _, record in made.records()]
    assert received == [1, 2]
    assert frames[0][-1].name == "fall"
    assert frames[1:] == [(), ()]
    # And what the root cannot read: all is received, for the next time.
    monkeypatch.setattr(gathering, "load_plain", no_room)
    made = gathering.complete_outlines(root(0), bundle, whole, (1, 2))
    assert received == [1, 2, 1, 2]
    assert list(made.ranks) == [0, 1, 2]


def arrived(sent):
    """Return what children have sent, none of it read yet."""
    return [(child, data, None) for child, data in sent.items()]


def test_a_rank_without_failures_has_nothing_to_merge():
    known = (Bundle(), b"")
    for received in ([], arrived({1: b"", 2: b""})):
        assert gathering._merge_children(root(0), 0, 1, known, received) == known


def test_what_cannot_be_merged_is_passed_on(monkeypatch):
    bundle, _ = gathered(failed(ValueError("x")))
    data = bundle.encode()

    def no_room(*_args, **_how):
        raise MemoryError

    monkeypatch.setattr(Bundle, "merge", no_room)
    merge = gathering._merge_children
    found = merge(root(1), 0, 1, (Bundle(), b""), arrived({2: b"", 3: data}))
    assert found[1] == data
    # Nothing comes from further down: it is not lost to that.
    assert merge(root(1), 0, 8, found, arrived({9: b""})) == found


def test_beyond_the_caps_an_outline_keeps_its_type(monkeypatch):
    monkeypatch.setattr("allraise.distinct.MAX_VARIANTS", 2)
    bundle, outlines = gathered(*(failed(OSError(28, f"full {n}")) for n in range(5)))
    made = bundle.reshaped(outlines[0].whole())
    names = [record.links[0].type_name for _, record in made.records()]
    assert names == ["OSError"] * 3
    assert list(made.ranks) == [0, 1, 2, 3, 4]
