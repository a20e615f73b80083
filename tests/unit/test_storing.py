"""The path of a report: what is refused, and what is written into, not replaced."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from allraise import load_report
from allraise.bundle import Bundle
from allraise.paths import check_path, descriptor_of, folder_for, is_special
from allraise.publishing import save_somewhere
from allraise.report import Report
from allraise.settings import read_settings
from unit.test_bundle import record


@pytest.fixture
def report():
    return Report.here("write", Bundle.of(1, record()), 4)


@pytest.fixture
def fifo(tmp_path):
    """A FIFO, and the end of it that is read."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, reader
    os.close(reader)


# -- what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [".", "./", "..", "a/..", "/", "", "folder", "folder/", "new/", "~"]
)
def test_what_names_a_folder_is_no_path_of_a_report(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"that of a file, '.*' is a folder"):
        check_path(path)


def test_a_home_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="begins with a home that is not known: '~no"):
        check_path("~nobody-of-this-name/report.json")


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        with pytest.raises(ValueError, match="is a socket"):
            check_path("socket")


def test_what_is_or_becomes_a_file_is_not_refused(fifo, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "fifo", "new", "new/{jobid}", "{step}", "x" * 5000):
        path = str(tmp_path / name)
        assert check_path(path) == path
    assert check_path("/dev/stderr") == "/dev/stderr"
    assert check_path("~/report.json") == "~/report.json"


@pytest.mark.parametrize(
    ("path", "text"),
    [("{x}.json", r"knows \{jobid\}, \{step\}, \{time\}"), (".", "that of a file")],
)
def test_a_bad_path_in_the_environment_is_refused_by_guards_too(
    path, text, monkeypatch
):
    monkeypatch.setenv("ALLRAISE_REPORT", path)
    with pytest.raises(ValueError, match=f"ALLRAISE_REPORT: .*{text}"):
        read_settings()


# -- what is written into -------------------------------------------------------------


def test_a_fifo_is_written_into_and_stays_one(report, fifo):
    path, reader = fifo
    report.save(path)
    assert path.is_fifo()
    data = os.read(reader, 100_000)
    assert data.decode() == json.dumps(report.to_dict(), indent=1) + "\n"
    assert [found.name for found in path.parent.iterdir()] == ["fifo"]


def test_a_fifo_that_nobody_reads_is_no_wait(report, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    told = save_somewhere(report, tmp_path / "fifo")
    assert f"No such device or address: '{tmp_path / 'fifo'}'" in told
    assert load_report(told.removeprefix("report: ").partition(" (not")[0]).size == 4


def test_a_fifo_whose_reader_sleeps_is_no_wait_for_ever(report, fifo, monkeypatch):
    monkeypatch.setattr("allraise.storing.WRITE_LIMIT_S", 0.3)
    big = Report.here("write", Bundle.of(1, record(message="x" * 200_000)), 4)
    with pytest.raises(TimeoutError, match=r"fifo took 65536 of \d+ bytes"):
        big.save(fifo[0])


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}", "link"])
def test_a_file_that_is_open_is_written_into_where_it_stands(report, tmp_path, form):
    """As /dev/stderr is, where it has been redirected: nothing before it is lost."""
    with (tmp_path / "log").open("w+") as log:
        log.write("what was there\n")
        log.flush()
        path = tmp_path / "as stderr"
        path.symlink_to(f"/proc/self/fd/{log.fileno()}")
        if form != "link":
            path = type(path)(form.format(log.fileno()))
        assert descriptor_of(path) == log.fileno()
        report.save(path)
        log.write("what came later\n")
    assert (tmp_path / "as stderr").is_symlink()
    text = (tmp_path / "log").read_text()
    assert text.startswith('what was there\n{\n "format"')
    assert text.endswith("\n}\nwhat came later\n")


def test_standard_output_gets_a_report(report, tmp_path):
    report.save(tmp_path / "r.json")
    code = (
        "import sys; from allraise import load_report\n"
        "load_report(sys.argv[1]).save('/dev/stdout')"
    )
    with (tmp_path / "out").open("wb") as out:
        command = [sys.executable, "-c", code, str(tmp_path / "r.json")]
        subprocess.run(command, stdout=out, check=True, timeout=60)
    assert load_report(tmp_path / "out").to_dict() == report.to_dict()


def test_a_link_to_a_file_is_replaced_and_the_file_is_not(report, tmp_path):
    (tmp_path / "file").write_text("another's")
    (tmp_path / "link").symlink_to("file")
    assert not is_special(tmp_path / "link")
    report.save(tmp_path / "link")
    assert (tmp_path / "file").read_text() == "another's"
    assert load_report(tmp_path / "link").size == 4


# -- folders ----------------------------------------------------------------------------


def test_folders_that_are_missing_are_made_when_a_report_is_written(report, tmp_path):
    path = tmp_path / "a" / "b" / "r.json"
    assert save_somewhere(report, path) == f"report: {path}"
    assert load_report(path).size == 4


def test_an_error_names_what_was_asked_for(report, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "none"
    with pytest.raises(FileNotFoundError) as caught:
        report.save(folder / "r.json")
    assert str(caught.value) == f"[Errno 2] No such file or directory: '{folder}'"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        report.save(tmp_path / "folder")
    assert str(caught.value).endswith(f"directory: '{tmp_path / 'folder'}'")


def test_nothing_is_kept_beside_a_device(fifo, tmp_path):
    assert folder_for(fifo[0]) is None
    assert folder_for(tmp_path / "a" / "b" / "r.json") == tmp_path
    (tmp_path / "file").touch()
    assert folder_for(tmp_path / "file" / "r.json") is None
