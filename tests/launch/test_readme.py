"""The README is run: each block of code, and what it says is printed."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import apart
import mpirun

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PROGRAMS = {
    text.partition("\n")[0].removeprefix("# "): text
    for language, text in BLOCKS
    if language == "python"
}
COMMANDS = [
    line.removeprefix("$ ")
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
]
N_RANKS = 4
DEADLINE_S = 90.0


def text_after(marker):
    """Return the block of output that follows a piece of the text."""
    rest = README[README.index(marker) :]
    return re.search(r"^```text\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def run(tmp_path):
    """Run a program of the README in a folder of its own."""

    def run(name, deadline_s=DEADLINE_S):
        (tmp_path / name).write_text(PROGRAMS[name])
        job = apart.run(N_RANKS, [name], deadline_s=deadline_s, cwd=tmp_path)
        assert job.left == []
        return job

    return run


def test_each_block_is_known_here():
    """A new block needs a test of what it does."""
    assert {language for language, _ in BLOCKS} == {"python", "text", "console"}
    assert list(PROGRAMS) == ["job.py", "guarded.py", "save.py"]
    assert sum(language == "text" for language, _ in BLOCKS) == 3
    assert len(COMMANDS) == 4


def test_the_job_hangs(run):
    job = run("job.py", deadline_s=30)
    assert job.timed_out
    assert "KeyError: 2" in job.errs[2]
    assert job.outs == [""] * N_RANKS


def test_two_lines_more_end_it_with_the_report_that_is_shown(run, tmp_path):
    ours, theirs = (
        PROGRAMS[name].splitlines()[1:] for name in ("guarded.py", "job.py")
    )
    added = [line for line in ours if line.startswith(("import allraise", "with "))]
    kept = [line.strip() for line in ours if line not in added]
    assert len(added) == 2
    assert kept == [re.sub(r"  # .*", "", line) for line in theirs]

    job = run("guarded.py")
    assert (job.codes, job.timed_out) == ([1] * N_RANKS, False), job.launcher
    assert job.outs == [""] * N_RANKS
    told = job.errs[0].replace(str(tmp_path), "/home/you")
    assert told.rstrip("\n").endswith(text_after("with this on rank 0").rstrip("\n"))


def test_all_or_nothing_is_as_told(run, tmp_path):
    job = run("save.py")
    assert (job.codes, job.timed_out) == ([0] * N_RANKS, False), job.errs
    assert job.outs == [""] * N_RANKS
    shards = [f"shard-{rank}" for rank in range(N_RANKS)]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["index", "save.py", *shards]
    assert (tmp_path / "index").read_text() == "[0, 4, 8, 12]"

    (tmp_path / "index").unlink()
    job = run("save.py")
    assert job.codes == [0] * N_RANKS, job.errs
    expected = text_after("Run again").splitlines()
    told = [line for line in job.outs[0].splitlines() if line in expected]
    assert told == expected
    assert job.outs[1:] == [""] * (N_RANKS - 1)
    assert not (tmp_path / "index").exists()


def test_the_extras_that_are_installed_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    installs = [shlex.split(line) for line in COMMANDS if line.startswith("pip")]
    assert [line[:2] for line in installs] == [["pip", "install"]] * 3
    named = [line[2].removeprefix(".").strip("[]") for line in installs]
    assert named == ["", *extras]


def test_a_job_that_is_run_by_allraise_ends_as_shown(tmp_path):
    command = shlex.split(COMMANDS[-1])
    assert command[:4] == ["mpiexec", "-n", "4", "python"]
    (tmp_path / "job.py").write_text(PROGRAMS["job.py"])
    ended = mpirun.run(N_RANKS, command[4:], deadline_s=DEADLINE_S, cwd=tmp_path)
    assert not ended.timed_out, ended.output
    assert ended.returncode != 0
    assert text_after("`allraise run` ends a job") in ended.output

    show = re.search(r"^`python (-m allraise show .*?)`", README, re.MULTILINE)[1]
    again = subprocess.run(
        [sys.executable, *shlex.split(show)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert text_after("`allraise run` ends a job") in again.stdout


def test_the_table_names_what_is_public():
    import allraise

    table = README[README.index("## Names") :]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {
        re.match(r"\w*", name)[0]
        for cell in first_cells
        for name in re.findall(r"`([^`]+)`", cell)
    }
    assert named - {"allraise", ""} == set(allraise.__all__)


def test_the_readme_is_short():
    assert len(README.splitlines()) < 150
