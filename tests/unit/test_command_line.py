"""The command line: what it says of itself, and of what it does not understand."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import allraise
from allraise.__main__ import main, split_program


@pytest.fixture
def call(monkeypatch, capsys):
    """Call it in this process; return the exit code and what was printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["allraise", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


def test_it_tells_its_version(call):
    assert call("--version") == (0, f"allraise {allraise.__version__}\n", "")


@pytest.mark.parametrize("command", ["run", "show", "doctor"])
def test_the_help_of_each_command_has_a_description_and_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    usage, description, *_ = out.split("\n\n")
    assert usage.startswith("usage: ")
    assert description.endswith(".")
    example = out.partition("\nexample")[2]
    assert f"allraise {command}" in example.replace("python -m ", "")


def test_the_help_of_show_knows_the_folder(call):
    assert "PATH.d" in call("show", "--help")[1]


def test_the_help_of_run_says_that_folders_are_made(call):
    assert "folders that are missing are made" in " ".join(
        call("run", "--help")[1].split()
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run"], "no program to run"),
        (["run", "nowhere.py"], "there is no program 'nowhere.py'"),
        (["run", "--nonsense", "x.py"], "unrecognized arguments: --nonsense"),
        (["run", "--grace", "-1", "x.py"], "positive number of seconds"),
        (["show", "a.json", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["doctor", "x"], "unrecognized arguments: x"),
    ],
)
def test_an_error_comes_with_the_usage_of_its_command(call, arguments, text):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    command = arguments[0]
    assert err.startswith("usage: ")
    assert f"allraise {command}" in err.partition("\n")[0]
    assert f"allraise {command}: error: " in err
    assert text in err


def test_a_bad_environment_comes_with_the_usage_of_the_command(call, monkeypatch):
    monkeypatch.setenv("ALLRAISE_TIMEOUT", "soon")
    code, _, err = call("run", "x.py")
    assert code == 2
    assert "allraise run: error: ALLRAISE_TIMEOUT must be" in err


@pytest.mark.parametrize(
    ("arguments", "head", "program"),
    [
        (["--", "x.py", "-v"], [], ("x.py", "-v")),
        (["--grace", "1", "--", "x.py", "--"], ["--grace", "1"], ("x.py", "--")),
        (["--", "-m", "x"], [], ("-m", "x")),
        (["--"], [], ()),
        (["x.py", "--", "y"], [], ("x.py", "--", "y")),
    ],
)
def test_two_dashes_end_the_options_of_run(arguments, head, program):
    assert split_program(arguments) == (head, program)


@pytest.mark.parametrize("command", [["run", __file__], ["doctor"]])
def test_where_mpi_cannot_be_started_it_is_said_in_a_line(tmp_path, command):
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").touch()
    (tmp_path / "mpi4py" / "MPI.py").write_text(
        "raise RuntimeError('cannot load MPI library')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "allraise", *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    text = f"allraise {command[0]}: MPI cannot be started: cannot load MPI library\n"
    assert ended.stderr == text
