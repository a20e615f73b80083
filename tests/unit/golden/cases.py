"""Failures whose text is compared with torch's, made the same way everywhere.

The code that fails is compiled under a fixed file name, so that neither the
folder nor the program that makes them shows in the text.
"""

from __future__ import annotations

import linecache

SOURCE = """\
class ShardError(Exception):
    pass


class SilentError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def write_shard(path, table):
    open_file(path)


def open_file(path):
    raise OSError(28, "No space left on device", path)


def missing_key(state):
    return state["model"]["layer.7"] + state["optimizer"]


def divide(a, b):
    return 1 + a / b - 2


def again(depth):
    again(depth + 1) if depth < 40 else stop()


def stop():
    raise ShardError("deep enough")


def ping(depth):
    pong(depth)


def pong(depth):
    ping(depth - 1) if depth else stop()


def two_lines():
    raise ShardError("first line\\nsecond line\\n")


def nothing_to_say():
    raise ShardError


def with_notes():
    exc = ShardError("noted")
    exc.add_note("shard 3 of 8")
    exc.add_note("two\\nlines")
    raise exc


def fake_a_rank():
    raise ShardError("x\\nTraceback (most recent call last): (RANK 5)\\nValueError: y")


def syntax():
    compile("x = = 1", "config.py", "exec")


def decode():
    b"ab\\xff".decode("utf-8")


def leave():
    raise SystemExit(3)


def interrupt():
    raise KeyboardInterrupt


def silent():
    raise SilentError


def many_arguments():
    raise ShardError("a", 2, None)


def not_ascii():
    größe = None
    return "宽" and größe["a"]
"""
FILE = "checkpoint_job.py"

CALLS = {
    "disk_full": 'write_shard("/scratch/shard3.bin", {})',
    "key_error": 'missing_key({"model": {}})',
    "carets": "divide(3, 0)",
    "recursion": "again(0)",
    "mutual_recursion": "ping(6)",
    "lines": "two_lines()",
    "no_message": "nothing_to_say()",
    "notes": "with_notes()",
    "fake_rank": "fake_a_rank()",
    "syntax": "syntax()",
    "decode": "decode()",
    "system_exit": "leave()",
    "interrupt": "interrupt()",
    "silent": "silent()",
    "many_arguments": "many_arguments()",
    "not_ascii": "not_ascii()",
}


def caught(call):
    """Return the exception that a call of `SOURCE` raises."""
    source = f"{SOURCE}\n{CALLS[call]}\n"
    lines = source.splitlines(keepends=True)
    # No file has this name, so the lines are all there is (None: never checked).
    linecache.cache[FILE] = (len(source), None, lines, FILE)
    names = {"__name__": "checkpoint_job"}
    try:
        exec(compile(source, FILE, "exec"), names)
    except BaseException as exc:
        tb = exc.__traceback__.tb_next  # without this function's own frame
        return exc.with_traceback(tb)
    raise AssertionError(call)


def failures_by_name(wrap):
    """Return the message and the failures of each case, pairs made by `wrap`."""
    cases = {call: {0: wrap(caught(call))} for call in CALLS}
    cases["no_failures"] = {}
    cases["two_ranks"] = {0: wrap(caught("disk_full")), 3: wrap(caught("key_error"))}
    cases["all_ranks"] = {r: wrap(caught(call)) for r, call in enumerate(CALLS)}
    cases["never_raised"] = {1: wrap(ValueError("made, not raised"))}
    cases["no_summary"] = {2: (caught("carets"), None)}
    cases["far_ranks"] = {1023: wrap(caught("lines")), 99999: wrap(KeyError("x"))}
    return {name: ("write", failures) for name, failures in cases.items()}
