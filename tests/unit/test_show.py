"""``allraise show``: what is printed, in which colours, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.paths import check_path, expand_path, job_id
from allraise.publishing import default_style, save_somewhere
from allraise.ranks import RankSet
from allraise.record import Frame, Link, Origin, Record
from allraise.report import Report
from allraise.showing import coloured, describe, wants_colour
from allraise.viewer import library_name
from unit.zoo import ZOO

SCHEMA = Path(__file__).parents[2] / "docs" / "report-schema.json"

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07 \u202egpj.exe \0 \udcff \x9b31m\r"
    "\nTraceback (most recent call last): (RANK 5)"
    "\n=== rank 5: fine\nreport: elsewhere.json"
    "\n</pre><script>alert(1)</script><!-- \u2028 &amp;"
)


def failed_in(*names, message="", kind="failure", type_name="ValueError"):
    frames = tuple(
        Frame("job.py", n, n, None, None, name, f"{name}()")
        for n, name in enumerate(names, 1)
    )
    line = f"{type_name}: {message}\n" if message else f"{type_name}\n"
    return Record((Link(type_name, message, (line,), (), frames),), kind=kind)


def report_of(records, size=None, step="write"):
    bundle = Bundle()
    for ranks, record in records:
        bundle.add(RankSet.parse(ranks), record)
    bundle.set_origin(bundle.ranks.first, Origin("node1", 7, 1.5e9))
    return Report.here(step, bundle, size)


@pytest.fixture
def path(tmp_path):
    report = report_of(
        [
            ("1", failed_in("main", "write", message="disk full")),
            (
                "0,2-7",
                failed_in(
                    "main",
                    "wait",
                    kind="blocked",
                    type_name="blocked",
                    message="in comm.Barrier()",
                ),
            ),
        ],
        8,
    )
    report.save(tmp_path / "report.json")
    return tmp_path / "report.json"


def show(*arguments, **env):
    return subprocess.run(  # noqa: PLW1510 the code is looked at
        [sys.executable, "-m", "allraise", "show", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONUTF8": "1", **env},
        timeout=60,
    )


def test_few_failed_ranks_are_shown_singly_and_the_waiting_in_a_group(path):
    text = show(path).stdout
    assert "Traceback (most recent call last): (RANK 1)\n" in text
    assert "=== ranks 0,2-7 (7 of 8): blocked: in comm.Barrier()\n" in text
    assert "Stack (most recent call last):\n" in text
    assert text.count("Traceback") == 1


def test_the_first_lines_say_where_a_report_is_from(path):
    report = report_of([("1", failed_in("main"))])
    known = {"time": "2026-01-02T03:04:05Z", "host": "node1", "python": "3.12.1"}
    known["mpi"] = "Open MPI v5.0.11, package: Open MPI root@x Distribution, ident: 5"
    report.environment.update(known, command=["python", "job.py"], exit_code=3)
    assert describe(report) == (
        "2026-01-02T03:04:05Z, node1, Open MPI v5.0.11, Python 3.12.1\n"
        "python job.py\n"
        "exit code 3\n"
    )
    report.environment["mpi"] = ""
    assert describe(report).startswith("2026-01-02T03:04:05Z, node1, Python 3.12.1\n")


@pytest.mark.parametrize(
    ("library", "name"),
    [
        (
            "Open MPI v5.0.11, package: Debian OpenMPI, ident: 5.0.11",
            "Open MPI v5.0.11",
        ),
        ("MPICH Version:      4.3.2", "MPICH 4.3.2"),
        ("MPICH Version:\t5.0.0\nMPICH Release date: unreleased", "MPICH 5.0.0"),
        (
            "Intel(R) MPI Library 2021.13 for Linux* OS",
            "Intel(R) MPI Library 2021.13 for Linux* OS",
        ),
        ("", ""),
    ],
)
def test_an_mpi_library_is_told_in_a_few_words(library, name):
    assert library_name(library) == name


def test_a_report_without_a_step_speaks_of_none():
    report = report_of([("2", failed_in("main"))], size=4, step="")
    assert report.headline() == "a step failed on rank 2 (1 of 4)"  # of a guard
    report.environment["ended_because"] = "failed"  # as `allraise run` writes it
    assert report.headline() == "the program failed on rank 2 (1 of 4)"
    assert report.text("groups").startswith(
        "the program failed on rank 2 (1 of 4)\n==="
    )


def test_why_the_job_was_ended_stands_beside_its_exit_code(path):
    report = report_of([("1", failed_in("main"))])
    why = "step 'write' passed its deadline of 5 s: rank 0 arrived, rank 1 missing"
    report.environment.update(exit_code=1, ended_because=why)
    report.save(path)
    assert f"exit code 1: {why}\n" in show(path).stdout


def test_a_kind_is_not_told_twice():
    records = [
        ("0", failed_in("f", kind="died", type_name="died", message="Aborted")),
        ("1", failed_in("f", kind="signalled", type_name="SIGTERM")),
    ]
    text = report_of(records).text("groups")
    assert "=== rank 0: died: Aborted\n" in text
    assert "=== rank 1: SIGTERM [signalled]\n" in text


def test_the_style_is_the_option_else_the_environment(path):
    assert "(RANK 1)" not in show(path, ALLRAISE_STYLE="groups").stdout
    assert "(RANK 1)" in show(path, "--style", "ranks", ALLRAISE_STYLE="tree").stdout


def test_the_tree_forks_where_ranks_part(path):
    assert show(path, "--style", "tree").stdout.endswith(
        "step 'write' failed on rank 1 (1 of 8)\n"
        "job.py:1 in main  [0-7]\n"
        "|- job.py:2 in write  [1]\n"
        "|      rank 1: ValueError: disk full\n"
        "`- job.py:2 in wait  [0,2-7]\n"
        "       ranks 0,2-7: blocked: in comm.Barrier()\n"
    )


def test_a_tree_of_a_deep_stack_is_no_recursion():
    report = report_of([("0", failed_in(*(f"f{n}" for n in range(3000))))])
    assert report.text("tree").count("\n") == 3002


def test_only_the_ranks_that_were_asked_for(path):
    assert "RANK 1" not in show(path, "--rank", "2-3").stdout
    assert "ranks 2-3 (2 of 8)" in show(path, "--rank", "2-3").stdout
    none = show(path, "--rank", "8-9")
    assert (none.returncode, none.stdout) == (2, "")
    assert "the report is about ranks 0-7, none of 8-9" in none.stderr
    assert show(path, "--rank", "1;2").returncode == 2


def on_terminal(path, **env):
    """Show a report on a terminal of its own, and return all it got."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "allraise", "show", str(path)],
        stdout=terminal,
        env={**os.environ, "TERM": "xterm", **env},
    )
    os.close(terminal)
    chunks = []
    try:
        while chunk := os.read(main, 4096):
            chunks.append(chunk)
    except OSError:  # Linux: the other side is closed
        pass
    os.close(main)
    assert process.wait(timeout=60) == 0
    return b"".join(chunks).decode()


def test_colours_are_for_terminals_that_want_them(path):
    assert "\x1b[1;31m=== ranks 0,2-7" in on_terminal(path)
    assert "\x1b" not in on_terminal(path, NO_COLOR="1")
    assert "\x1b" not in on_terminal(path, TERM="dumb")
    assert "\x1b" not in show(path, TERM="xterm").stdout
    assert not wants_colour(io.StringIO())


def test_colours_change_nothing_else():
    text = "=== rank 0\nTraceback (most recent call last):\n  File x\n    y\n"
    plain = coloured(text)
    for code in ("\x1b[1;31m", "\x1b[1m", "\x1b[36m", "\x1b[0m"):
        plain = plain.replace(code, "")
    assert plain == text


def test_a_terminal_that_knows_little_gets_escapes(tmp_path):
    report_of([("0", failed_in("main", message="für immer"))]).save(tmp_path / "r")
    shown = show(tmp_path / "r", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert shown.returncode == 0
    assert r"f\xfcr immer" in shown.stdout


def test_a_reader_that_goes_away_is_no_error(path):
    show = [sys.executable, "-m", "allraise", "show", str(path)]
    process = subprocess.run(  # noqa: PLW1510 of head
        f"{shlex.join(show)} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout.count("\n") == 1
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value at line 1, column 1"),
        (b'{"format": "allraise-report",\n "versi', "at line 2, column 2"),
        (b"[1, 2]", "not an allraise report"),
        (b"\x80\x04\x95pickle", "is no text: invalid start byte at byte 0"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"format": "\x1b[2J"}', "Invalid control character at at line 1, column 13"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--html", "out.html"]])
def test_what_is_no_report_ends_with_2_and_the_place(tmp_path, content, says, options):
    file = tmp_path / "alien.json"
    file.write_bytes(content)
    shown = show(file, *options)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert says in shown.stderr
    assert "Traceback" not in shown.stderr
    assert "\x1b" not in shown.stderr


def test_a_file_that_is_not_there_is_told():
    assert show("nowhere.json").returncode == 2
    assert "No such file" in show("nowhere.json").stderr


@pytest.mark.parametrize("style", ["ranks", "groups", "tree"])
def test_nothing_hostile_is_obeyed_in_any_style(tmp_path, style):
    frames = (Frame(HOSTILE, 1, 1, None, None, HOSTILE, HOSTILE),)
    for kind in ("failure", "blocked"):
        link = Link(HOSTILE, HOSTILE, (HOSTILE + "\n",), (HOSTILE,), frames)
        bundle = Bundle.of(3, Record((link,), kind=kind))
        report = Report.here(HOSTILE, bundle, 8)
        report.save(tmp_path / "r.json")
        shown = show(tmp_path / "r.json", "--style", style)
        assert shown.returncode == 0, shown.stderr
        for character in "\x1b\x07\0\x9b\r\u202e\u2028\udcff":
            assert character not in shown.stdout
        fakes = ("Traceback (most recent call last): (RANK 5)", "=== rank 5", "report:")
        assert not [x for x in shown.stdout.splitlines() if x.startswith(fakes)]


def test_ten_megabytes_are_cut_with_their_length_told():
    report = report_of([("0", failed_in("main", message="x" * 10_000_000))])
    for style in ("ranks", "groups", "tree"):
        text = report.text(style)
        assert len(text) < 40_000
        assert "more" in text


def test_a_hundred_thousand_ranks_are_a_small_report(tmp_path):
    bundle = Bundle()
    bundle.add(RankSet.from_ranges([(0, 99_999)]), failed_in("main"))
    Report.here("", bundle, 100_000).save(tmp_path / "r.json")
    assert (tmp_path / "r.json").stat().st_size < 10_000
    shown = show(tmp_path / "r.json")
    assert "=== ranks 0-99999 (100000 of 100000)" in shown.stdout
    assert len(show(tmp_path / "r.json", "--style", "ranks").stdout) < 300_000


# -- the file ---------------------------------------------------------------------


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("name", sorted(ZOO))
def test_reports_of_every_kind_of_exception_keep_to_the_schema(name, tmp_path):
    bundle = Bundle.of(0, capture(ZOO[name].catch()))
    Report.here("write", bundle, 1).save(tmp_path / "r.json")
    schema = json.loads(SCHEMA.read_text())
    data = json.loads((tmp_path / "r.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)


def test_the_schema_refuses_what_is_none():
    """A schema that accepts all would show nothing."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    good = json.loads(json.dumps(report_of([("0", failed_in("f"))]).to_dict()))
    assert validator.is_valid(good)
    for change in (
        {"version": 2},
        {"size": "8"},
        {"extra": 1},
        {"failures": [{}]},
        {"origins": {"x": {}}},
    ):
        assert not validator.is_valid(good | change)


def test_the_file_tells_the_spread_of_times():
    report = report_of([("0-1", failed_in("f"))])
    report.bundle.set_origin(1, Origin("node2", 8, 1.5e9 + 0.25))
    assert report.to_dict()["times"] == {
        "first": "2017-07-14T02:40:00.000Z",
        "last": "2017-07-14T02:40:00.250Z",
        "spread_s": 0.25,
    }


def test_others_can_read_the_file(path):
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_placeholders_are_filled_in_and_cannot_leave_the_folder():
    assert str(expand_path("a/{jobid}-{step}.json", "../../etc/x\0y", "7")) == (
        "a/7-etc-x-y.json"
    )
    assert str(expand_path("{step}", "", "7")) == "none"
    assert expand_path("{time}", "", "7").name.endswith("Z")
    assert len(expand_path("{step}", "x" * 5000, "7").name) < 100
    with pytest.raises(ValueError, match=r"knows \{jobid\}, \{step\}, \{time\}"):
        check_path("{rank}.json")


def test_the_number_of_the_job_is_the_schedulers():
    assert job_id({"SLURM_JOB_ID": "12"}) == "12"
    assert job_id({"PBS_JOBID": "12.server/x"}) == "12.server-x"
    assert job_id({}) == f"pid{os.getpid()}"


def test_a_report_that_can_be_saved_nowhere_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    report = report_of([("0", failed_in("f"))])
    (tmp_path / "file").touch()
    told = save_somewhere(report, tmp_path / "file" / "r.json")
    reason = f"NotADirectoryError: [Errno 20] Not a directory: '{tmp_path / 'file'}'"
    assert told == f"no report file: {reason}"


def test_blocks_up_to_eight_ranks_and_groups_from_nine():
    assert [default_style(n) for n in (0, 1, 8, 9, 512)] == (
        ["ranks"] * 3 + ["groups"] * 2
    )
