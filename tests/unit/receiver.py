"""The other process: reads a bundle, says what it found.

Run as ``python receiver.py BUNDLE OUT [FOLDER]``; with FOLDER, the modules in
it can be imported, without, their classes cannot. Imports nothing of the tests.
"""

from __future__ import annotations

import json
import re
import reprlib
import sys
import traceback
from pathlib import Path

from allraise.bundle import Bundle
from allraise.rebuild import rebuild
from allraise.render import format_block

MAX_DEPTH = 3  # of the chain and of groups, what is compared


def text_of(value) -> str:
    """Return a bounded repr; an exception's in a form that both ends have."""
    if issubclass(type(value), BaseException):
        return f"{type(value).__qualname__} {BaseException.__str__(value)[:200]}"
    if type(value).__name__ == "traceback":
        return str([(f.filename, f.lineno) for f in traceback.extract_tb(value)])
    if type(value) is bytes:
        return f"{value[:20]!r} of {len(value)}"
    try:
        # Two objects with the default repr differ in nothing but the address.
        return re.sub("0x[0-9a-f.]+>|[0-9a-f.]+>$", "0x>", reprlib.repr(value))
    except BaseException:
        return "<repr failed>"


def native_fields(cls) -> list[str]:
    """Return the names of what the builtin bases keep."""
    skipped = {"args", "obj", "with_traceback", "add_note"}
    found = set()
    for base in type.__dict__["__mro__"].__get__(cls):
        if base.__module__ == "builtins":
            found |= {
                name
                for name, field in base.__dict__.items()
                if type(field).__name__ in ("member_descriptor", "getset_descriptor")
            }
    return sorted(name for name in found - skipped if not name.startswith("__"))


def describe(exc: BaseException | None, held_by: tuple = ()):
    """Say all there is to an exception, asking none of its own methods."""
    if exc is None or len(held_by) > MAX_DEPTH or id(exc) in held_by:
        return None
    held_by += (id(exc),)
    cls = type(exc)

    def read(name, owner=BaseException):
        return owner.__dict__[name].__get__(exc)

    try:
        name = f"{cls.__module__}.{cls.__qualname__}"
        fields = {}
        for field in native_fields(cls):
            try:
                fields[field] = text_of(object.__getattribute__(exc, field))
            except AttributeError:
                fields[field] = "<not set>"
    except BaseException:
        return {"type": type.__dict__["__qualname__"].__get__(cls)}
    attributes = read("__dict__")
    group = issubclass(cls, BaseExceptionGroup)
    members = read("exceptions", BaseExceptionGroup) if group else ()
    suppress = read("__suppress_context__")
    cause, context = read("__cause__"), read("__context__")
    if cause is not None or suppress:
        context = None  # not shown, not carried
    slots = {
        key: text_of(slot.__get__(exc))
        for base in cls.__mro__
        for key, slot in base.__dict__.items()
        if type(slot).__name__ == "member_descriptor"
        and base.__module__ != "builtins"
        and is_set(slot, exc)
    }
    fields.pop("exceptions", None)
    return {
        "type": name,
        "args": [text_of(arg) for arg in read("args")[:50]],
        "attributes": {str(k): text_of(v) for k, v in attributes.items()},
        "slots": slots,
        "fields": fields,
        "suppress": suppress,
        "cause": describe(cause, held_by),
        "context": describe(context, held_by),
        "members": [describe(member, held_by) for member in members[:20]],
    }


def is_set(slot, exc) -> bool:
    try:
        slot.__get__(exc)
    except AttributeError:
        return False
    return True


def stack_of(exc: BaseException) -> list:
    """Return file, line and function of the rebuilt traceback object."""
    found = traceback.walk_tb(BaseException.__dict__["__traceback__"].__get__(exc))
    return [(f.f_code.co_filename, line, f.f_code.co_name) for f, line in found]


def main() -> None:
    _, source, target, *folders = sys.argv
    sys.path[:0] = folders
    answers = {}
    for ranks, record in Bundle.decode(Path(source).read_bytes()).records():
        for rank in ranks:
            exc, summary = rebuild(record)
            remote = type(exc).__name__ == "RemoteError"
            answers[rank] = {
                "block": format_block(record, rank),
                "type_name": record.links[0].type_name,
                "message": record.links[0].message,
                "description": describe(exc),
                "remote": str(exc) if remote else None,
                "reason": exc.reason if remote else None,
                "summary": [(f.filename, f.lineno, f.name) for f in summary],
                "stack": stack_of(exc),
            }
    Path(target).write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
