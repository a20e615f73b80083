"""Stacks: deep, odd, without source, with a source that changes or cannot be read."""

from __future__ import annotations

import asyncio
import functools
import linecache
import sys
import tempfile
import threading
from pathlib import Path

from unit.zoo.case import case, cases_of


def compiled(source, filename="<generated>", **names):
    exec(compile(source, filename, "exec"), names)
    return names


@case(says="maximum recursion depth exceeded", portable=True)
def recursion():
    def again(depth):
        return again(depth + 1)

    again(0)


@case(says="maximum recursion depth exceeded", portable=True)
def mutual_recursion():
    def ping(depth):
        return pong(depth + 1)

    def pong(depth):
        return ping(depth + 1)

    ping(0)


@case(says="at depth 900", portable=True)
def nine_hundred_distinct_calls():
    lines = ["def f0():", "    raise ValueError('at depth 900')"]
    for i in range(1, 900):
        lines += [f"def f{i}():", f"    f{i - 1}()"]
    names = compiled("\n".join(lines))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 2000))
    try:
        names["f899"]()
    finally:
        sys.setrecursionlimit(before)


@case(says="very deep", portable=True, exact=False)
def five_thousand_frames():
    def down(depth):
        if depth == 0:
            msg = "very deep"
            raise ValueError(msg)
        if depth % 2:
            down(depth - 1)
        else:
            down(depth - 1)  # another line, so that nothing folds

    caught: list[BaseException] = []

    def work():
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(6000)
        try:
            down(5000)
        except ValueError as exc:
            caught.append(exc)
        finally:
            sys.setrecursionlimit(before)

    size = threading.stack_size(64 * 1024 * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    threading.stack_size(size)
    raise caught[0]


@case(says="from a string", portable=True)
def executed_string():
    exec("def inside():\n    raise ValueError('from a string')\ninside()", {})


def from_file(source, *, keep):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "job.py")
        path.write_text(source)
        linecache.checkcache(str(path))
        names = compiled(source, str(path))
        if keep:  # read while it is there
            linecache.getline(str(path), 1)
        try:
            names["work"]()
        except ValueError as exc:
            if keep:
                for line in range(1, source.count("\n") + 2):
                    linecache.getline(str(path), line)
            return exc
    return None


@case(says="deleted before", portable=True)
def source_file_deleted():
    raise from_file("def work():\n    raise ValueError('deleted before')", keep=False)


@case(says="two lines", portable=True)
def statement_on_many_lines():
    values = [1, 2]
    raise ValueError(
        "two lines",
        values[0]
        + values[1],
    )  # fmt: skip


@case(says="not a number", portable=True, exact=False)
def statement_on_a_hundred_lines():
    """More lines than travel: there is no last line to draw carets under."""
    lines = ["def work():", "    return fail(", *["        1,"] * 100, "    )"]
    exec(compile("\n".join(lines), "long.py", "exec"), names := {})
    path = "long.py"
    linecache.cache[path] = (1, None, [f"{line}\n" for line in lines], path)

    def fail(*_values):
        msg = "not a number"
        raise ValueError(msg)

    names["fail"] = fail
    names["work"]()


@case(says="unsupported operand", portable=True)
def carets_within_a_line():
    table = {"a": {"b": None}}
    return 1 + table["a"]["b"] * 2


@case(says="unsupported operand", portable=True)
def carets_below_wide_characters():
    磁盘, é = None, 1  # noqa: PLC2401 that is the case
    return "宽" and 磁盘 + é


@case(says="minified", portable=True, exact=False)
def line_of_a_megabyte():
    padding = " + ".join(["0"] * 250_000)
    source = f"def work():\n    x = {padding[:-4]} or (_ for _ in ()).throw(ValueError('minified'))\n"
    compiled(source, "minified.js")["work"]()


@case(says="in a generator", portable=True)
def generator_and_comprehension():
    def numbers():
        yield 1
        msg = "in a generator"
        raise ValueError(msg)

    return [number for number in numbers()]  # noqa: C416 a frame, before 3.12


@case(says="in a task", portable=True)
def coroutine():
    async def fail():
        await asyncio.sleep(0)
        msg = "in a task"
        raise ValueError(msg)

    asyncio.run(fail())


@case(says="behind decorators", portable=True)
def decorated():
    def passing(function):
        @functools.wraps(function)
        def call(*args, **options):
            return function(*args, **options)

        return call

    @passing
    @passing
    def work():
        msg = "behind decorators"
        raise ValueError(msg)

    work()


@case(says="odd name", portable=True, exact=False)
def file_and_function_with_odd_names():
    names = compiled(
        "def work():\n    raise ValueError('odd name')",
        "fi\udcffle\n (RANK 9)\x1b[2J.py",
    )
    work = names["work"]
    work.__code__ = work.__code__.replace(co_name="na\nme", co_qualname="na\nme")
    work()


@case(says="no line numbers", portable=True, exact=False)
def code_without_lines():
    names = compiled("def work():\n    raise ValueError('no line numbers')")
    work = names["work"]
    work.__code__ = work.__code__.replace(co_linetable=b"")
    work()


class BadLoader:
    def get_source(self, name):
        msg = "the loader fails"
        raise RuntimeError(msg)


class InterruptingLoader:
    def get_source(self, name):
        raise KeyboardInterrupt


@case(says="loader", portable=True, exact=False)
def loader_raises():
    """`linecache` asks the loader of the module; its error comes out of `traceback`."""
    compiled(
        "raise ValueError('loader')",
        "/nonexistent/loaded.py",
        __name__="loaded",
        __loader__=BadLoader(),
    )


@case(says="loader", portable=True, exact=False)
def loader_interrupts():
    compiled(
        "raise ValueError('loader')",
        "/nonexistent/interrupting.py",
        __name__="loaded",
        __loader__=InterruptingLoader(),
    )


@case(says="module globals", portable=True)
def module_globals_are_hostile():
    compiled(
        "raise ValueError('module globals')",
        "/nonexistent/hostile.py",
        __name__=42,
        __loader__=None,
        __spec__="no spec",
    )


@case(says="control flow", portable=True)
def raised_again_elsewhere():
    def first():
        msg = "control flow"
        raise ValueError(msg)

    try:
        first()
    except ValueError as exc:
        kept = exc
    try:
        raise kept
    except ValueError as exc:
        raise exc from None


class SourceError(Exception):
    pass


cases_of({"frames_cut_by_with_traceback": (lambda: SourceError("cut"), "cut")})
