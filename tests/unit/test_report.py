"""Report files: whole or not at all, and read where nothing is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from allraise import CheckpointException, Report, load_report, wrap_exception
from allraise.bundle import Bundle
from allraise.capture import capture
from unit.test_bundle import record
from unit.zoo import ZOO


@pytest.fixture
def report():
    bundle = Bundle.merge(
        Bundle.of(rank, capture(ZOO[name].catch()))
        for rank, name in enumerate(
            ("cause", "group", "notes", "recursion", "surrogates", "local_class")
        )
    )
    return Report.here("write shards", bundle, 8)


def test_a_report_comes_back_as_it_was_saved(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    again = load_report(path)
    assert (again.step, again.size, again.ranks) == ("write shards", 8, report.ranks)
    assert again.environment == report.environment
    assert again.bundle.origins == report.bundle.origins
    assert again.text("groups") == report.text("groups")
    assert again.text("ranks") == report.text("ranks")


def test_the_file_is_plain_json(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(str(path))
    data = json.loads(path.read_text(encoding="ascii"))
    assert (data["format"], data["version"]) == ("allraise-report", 1)
    assert data["failures"][0]["ranks"] == [[0, 0]]


def test_saving_leaves_no_other_file(report, tmp_path):
    report.save(tmp_path / "report.json")
    report.save(tmp_path / "report.json")
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_save_leaves_the_file_that_was_there(report, tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    path.write_text("the previous report")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report.save(path)
    assert path.read_text() == "the previous report"
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_missing_folder_is_an_os_error(report, tmp_path):
    with pytest.raises(FileNotFoundError):
        report.save(tmp_path / "none" / "report.json")


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_report(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"is not a whole JSON file: Expecting value at line 1, column 1"),
        ('{"format":\n "all', r"is not a whole JSON file: .* at line 2, column 2"),
        ("[]", "is JSON, but not an allraise report"),
        ("42", "is JSON, but not an allraise report"),
        ('{"format": "other"}', "is JSON, but not an allraise report"),
        (
            '{"format": "allraise-report", "version": 99}',
            "is of report version 99; this allraise reads version 1",
        ),
        (
            '{"format": "allraise-report", "version": 1}',
            "is a damaged report: KeyError: 'failures'",
        ),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(tmp_path, text, says):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        load_report(path)
    assert str(caught.value).startswith(str(path))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(b'{"format": "\xff"}')
    with pytest.raises(ValueError, match="is no text: invalid start byte at byte 12"):
        load_report(path)


def every_change(data):
    """Go through the report with each value in turn replaced or removed."""
    bad = [None, "text", -1, [], {}, [[]], [[1]], [["a", "b"]], 1e999, True]
    stack = [data]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        for key in keys:
            before = node[key]
            for value in bad:
                node[key] = value
                yield
            node[key] = before
            if isinstance(node, dict):
                del node[key]
                yield
                node[key] = before
            if isinstance(before, (dict, list)):
                stack.append(before)


def test_a_damaged_report_is_refused_or_shown_never_anything_else(tmp_path):
    path = tmp_path / "report.json"
    bundle = Bundle.merge(
        [Bundle.of(0, record()), Bundle.of(2, capture(ZOO["group"].catch()))]
    )
    Report("write", bundle, 4).save(path)
    data = json.loads(path.read_text())
    n_refused = n_changes = 0
    for _ in every_change(data):
        n_changes += 1
        path.write_text(json.dumps(data))
        try:
            found = load_report(path)
        except ValueError as error:
            assert str(error).startswith(str(path))  # noqa: PT017 of many
            n_refused += 1
            continue
        for style in ("groups", "ranks"):
            found.text(style)
        found.to_dict()
    assert n_changes > 500
    assert n_refused > n_changes / 3


def test_a_cut_file_is_refused(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    whole = path.read_text()
    for length in range(0, len(whole) - 1, len(whole) // 40):
        path.write_text(whole[:length])
        with pytest.raises(ValueError, match="is not a whole JSON file"):
            load_report(path)


def test_exceptions_of_a_file_are_remote_errors(report, tmp_path):
    report.save(tmp_path / "report.json")
    again = load_report(tmp_path / "report.json")
    made = CheckpointException.from_bundle("x", again.bundle, ordinary=True)
    assert type(made.failures[0][0]).__name__ == "RemoteError"
    assert made.failures[0][0].type_name == "ValueError"


def test_a_report_can_be_read_where_no_mpi_is_installed(report, tmp_path):
    path = tmp_path / "report.json"
    report.save(path)
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from allraise import load_report\n"
        "print(load_report(sys.argv[1]).ranks)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("(0, 1, 2, 3, 4, 5)\n", "")


def test_the_report_of_a_constructed_exception_can_be_saved(tmp_path):
    exc = ZOO["keyword_only"].catch()
    made = CheckpointException("write", {3: wrap_exception(exc)})
    made.report.save(Path(tmp_path, "r.json"))
    assert load_report(tmp_path / "r.json").text() == made.report.text()
