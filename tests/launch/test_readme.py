"""The README is run: each block of code, and what it says is printed."""

import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import apart
import mpirun
from pages import ROOT, Page, is_shown

README = Page.read("README.md")
N_RANKS = 4
DEADLINE_S = 90.0


@pytest.fixture
def run(tmp_path):
    """Run a program of the README in a folder of its own."""

    def run(name, deadline_s=DEADLINE_S):
        (tmp_path / name).write_text(README.programs[name])
        job = apart.run(N_RANKS, [name], deadline_s=deadline_s, cwd=tmp_path)
        assert job.left == []
        return job

    return run


def test_each_block_is_known_here():
    """A new block needs a test of what it does."""
    assert README.languages == {"python", "text", "console"}
    assert list(README.programs) == ["job.py", "guarded.py", "save.py"]
    assert len(README.blocks("text")) == 3
    assert len(README.commands) == 6


def test_the_job_hangs(run):
    job = run("job.py", deadline_s=30)
    assert job.timed_out
    assert "KeyError: 2" in job.errs[2]
    assert job.outs == [""] * N_RANKS


def test_two_lines_more_end_it_with_the_report_that_is_shown(run, tmp_path):
    ours, theirs = (
        README.programs[name].splitlines()[1:] for name in ("guarded.py", "job.py")
    )
    added = [line for line in ours if line.startswith(("import allraise", "with "))]
    kept = [line.strip() for line in ours if line not in added]
    assert len(added) == 2
    assert kept == [re.sub(r"  # .*", "", line) for line in theirs]
    assert "mpiexec -n 4 python guarded.py" in README.commands

    job = run("guarded.py")
    assert (job.codes, job.timed_out) == ([1] * N_RANKS, False), job.launcher
    assert job.outs == [""] * N_RANKS
    told = job.errs[0].replace(str(tmp_path), "/home/you")
    assert is_shown(README.shown_after("now ends at once"), told), told
    # The others: in short, without the lines of a stack that is not theirs.
    for rank in (1, 3):
        assert 1 < len(job.errs[rank].splitlines()) < len(job.errs[0].splitlines())
        assert job.errs[rank].rstrip().endswith("[rank 0 of 4 has the whole report]")


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
    assert is_shown(README.shown_after("Run a second time"), job.outs[0]), job.outs[0]
    assert job.outs[1:] == [""] * (N_RANKS - 1)
    assert not (tmp_path / "index").exists()


def test_the_extras_that_are_installed_are_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    typed = [shlex.split(line) for line in README.commands if line.startswith("pip")]
    assert [line[:2] for line in typed] == [["pip", "install"]] * 3
    named = [line[2].removeprefix(".").strip("[]") for line in typed]
    assert named == ["", *project["optional-dependencies"]]
    # What the text names as the oldest that will do.
    assert project["requires-python"] == ">=3.11"
    assert any(need.startswith("mpi4py>=4.0") for need in project["dependencies"])
    assert "Python 3.11 and mpi4py 4.0, or newer" in README.text


def test_a_job_that_is_run_by_allraise_ends_as_shown(tmp_path):
    command = shlex.split(README.commands[-1])
    assert command[:4] == ["mpiexec", "-n", "4", "python"]
    (tmp_path / "job.py").write_text(README.programs["job.py"])
    ended = mpirun.run(N_RANKS, command[4:], deadline_s=DEADLINE_S, cwd=tmp_path)
    assert not ended.timed_out, ended.output
    assert ended.returncode != 0
    block = README.shown_after("## Without changing the job")
    # The launcher has its word too.
    assert is_shown(f"...\n{block}...\n", ended.stderr), ended.output

    show = re.search(r"`python (-m allraise show .*?)`", README.text)[1]
    again = subprocess.run(
        [sys.executable, *shlex.split(show)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    parts = block.split("...\n")[0].partition("\n\n")
    assert parts[2] in again.stdout


def test_the_variables_are_those_that_are_read():
    source = (ROOT / "src/allraise/settings.py").read_text()
    assert set(re.findall(r"ALLRAISE_[A-Z]+", README.text)) == set(
        re.findall(r"ALLRAISE_[A-Z]+", source)
    )


def test_the_readme_is_short():
    assert len(README.text.splitlines()) < 150
