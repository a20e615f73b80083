"""`str()` is torch's to the byte; and what torch drops is as Python prints it."""

from __future__ import annotations

import linecache
import sys
import traceback
from pathlib import Path

import pytest

from allraise import CheckpointException, wrap_exception
from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.rebuild import rebuild
from allraise.render import format_block
from unit.golden.cases import CALLS, caught, failures_by_name
from unit.zoo import ZOO

GOLDEN = Path(__file__).parent / "golden"
# Python 3.12 prints what 3.11 does, 3.13 more carets; a later one most likely
# what 3.13 does.
FOLDER = max(
    (p for p in GOLDEN.glob("3.*") if int(p.name[2:]) <= sys.version_info.minor),
    key=lambda p: int(p.name[2:]),
)
CASES = sorted(path.stem for path in FOLDER.glob("*.txt"))


def as_here(text):
    """Leave carets out where this Python places them wrong, under wide characters."""
    if sys.version_info >= (3, 11, 7):
        return text
    return "\n".join(line for line in text.split("\n") if set(line) - set(" ~^"))


def golden(name):
    return as_here((FOLDER / f"{name}.txt").read_text("utf-8"))


def test_every_case_has_a_golden_text():
    assert sorted(failures_by_name(wrap_exception)) == CASES


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_torchs_to_the_byte(name):
    message, failures = failures_by_name(wrap_exception)[name]
    made = str(CheckpointException(message, failures))
    assert as_here(made) == golden(name)


@pytest.mark.parametrize("call", CALLS)
def test_the_text_of_what_was_gathered_is_torchs_too(call):
    record = capture(caught(call))
    bundle = Bundle.decode(Bundle.of(0, record).encode())
    made = CheckpointException.from_bundle("write", bundle, ordinary=True)
    assert as_here(str(made)) == golden(call)


def job(folder, lines):
    """Compile a job into a file, and return what it raises."""
    path = folder / "job.py"
    path.write_text(lines)
    try:
        exec(compile(lines, str(path), "exec"), {"__name__": "job"})
    except Exception as exc:
        return path, exc
    raise AssertionError


FAILING = "def work(a, b):\n    return 1 + a[0] / b\n\nwork([1], 0)\n"


@pytest.mark.parametrize("change", ["deleted", "altered"])
def test_source_text_is_that_of_the_failing_rank(tmp_path, change):
    path, exc = job(tmp_path, FAILING)
    record = capture(exc)
    expected = "".join(traceback.format_exception(exc))
    if change == "deleted":
        path.unlink()
    else:
        path.write_text("# another version\n" * 10)
    linecache.clearcache()
    block = format_block(record, 3)
    assert block.replace(" (RANK 3)", "") == expected
    assert "    return 1 + a[0] / b\n" in block
    assert "~~~~~^~~" in block


def test_the_receiver_never_looks_for_a_source_file(tmp_path, monkeypatch):
    """A receiver on another node may have a file of that name, and wrong lines."""
    _, exc = job(tmp_path, FAILING)
    known = capture(exc)
    unknown = capture(ZOO["loader_raises"].catch())
    asked = []
    for name in ("getline", "getlines", "checkcache", "updatecache", "lazycache"):
        monkeypatch.setattr(linecache, name, lambda *args: asked.append(args) or [])
    for record in (known, unknown):
        format_block(record, 0)
        _, summary = rebuild(record)
        summary.format()
    assert asked == []


def test_carets_count_bytes_as_python_does():
    exc = ZOO["carets_below_wide_characters"].catch()
    made = CheckpointException("x", {0: wrap_exception(exc)})
    expected = "".join(traceback.format_exception(exc))
    assert expected in str(made).replace(" (RANK 0)", "")


@pytest.mark.parametrize(
    "name",
    [
        "cause",
        "context",
        "suppressed_context",
        "group",
        "group_in_a_group",
        "group_member_has_a_cause",
        "group_among_the_causes",
        "group_of_500",
        "group_100_deep",
        "notes",
        "recursion",
        "mutual_recursion",
        "statement_on_many_lines",
        "coroutine",
        "real_syntax_error",
        "real_attribute_error",
        "event_loop",
    ],
)
def test_chains_groups_and_hints_are_as_python_prints_them(name):
    """Constructed by hand, where the exception never travelled."""
    exc = ZOO[name].catch()
    text = str(CheckpointException("step", {5: wrap_exception(exc)}))
    assert text.count("(RANK 5)") == 1
    body = text.removeprefix("CheckpointException ranks:dict_keys([5])\n")
    assert body.replace(" (RANK 5)", "") == "".join(traceback.format_exception(exc))


def test_the_rank_stands_in_the_header_of_the_last_traceback():
    exc = ZOO["cause"].catch()
    text = str(CheckpointException("step", {5: wrap_exception(exc)}))
    first, _, last = text.partition("direct cause of the following")
    assert "(RANK 5)" not in first
    assert "Traceback (most recent call last): (RANK 5)\n" in last


def test_a_recursion_is_folded_and_travels_as_one_frame():
    record = capture(ZOO["recursion"].catch())
    assert len(record.links[0].frames) < 10
    _, summary = rebuild(record)
    assert len(summary) > 500
    assert "[Previous line repeated" in format_block(record, 0)


def test_an_unnamed_step_and_no_failures_print_as_in_torch():
    assert (
        str(CheckpointException("", {})) == "CheckpointException ranks:dict_keys([])\n"
    )
