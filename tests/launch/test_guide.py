"""The guide is run: each of its programs, and what it says is printed."""

import re
import shlex

import pytest

import allraise
import apart
import mpirun
from allraise.__main__ import split_program
from pages import Page, is_shown

GUIDE = Page.read("docs/guide.md")
N_RANKS = 4
DEADLINE_S = 90.0


@pytest.fixture
def run(tmp_path):
    """Run a program of the guide in a folder of its own."""

    def run(name, codes=(0,) * N_RANKS):
        (tmp_path / name).write_text(GUIDE.programs[name])
        job = apart.run(N_RANKS, [name], deadline_s=DEADLINE_S, cwd=tmp_path)
        assert not job.timed_out, job.launcher
        assert (job.codes, job.left) == (list(codes), []), job.errs
        return job

    return run


def is_told(marker, output, folder):
    """Tell whether output is what the guide shows, where its programs are."""
    return is_shown(GUIDE.shown_after(marker), output.replace(f"{folder}/", ""))


def test_each_block_is_known_here():
    """A new block needs a test of what it does."""
    names = ["local.py", "exchange.py", "writer.py", "caught.py", "hang.py"]
    assert list(GUIDE.programs) == names
    assert len(GUIDE.blocks("text")) == 3
    assert len(GUIDE.commands) == 3
    assert "mpiexec -n 4 python local.py" in GUIDE.commands


def test_work_that_each_rank_does_alone(run, tmp_path):
    for rank in range(N_RANKS):
        (tmp_path / f"input-{rank}.txt").write_text(f"{rank} 1")
    assert run("local.py").outs == ["total 10\n", "", "", ""]

    (tmp_path / "input-2.txt").unlink()
    job = run("local.py", codes=[1] * N_RANKS)
    assert job.outs == [""] * N_RANKS
    assert is_told("`input-2.txt` is missing", job.errs[0], tmp_path), job.errs[0]


def test_communication_on_the_communicator_of_the_guard(run, tmp_path):
    job = run("exchange.py")
    told = job.outs[0]
    assert is_told("marked `[interrupted]`", told, tmp_path), told
    failure, woken = told.index("ZeroDivisionError"), told.index("[interrupted]")
    assert failure < woken
    assert "allraise.PeerFailure" in told
    assert job.outs[1:] == [""] * (N_RANKS - 1)


def test_a_writer_that_tries_again_elsewhere(run, tmp_path):
    for folder in ("fast", "safe"):
        (tmp_path / folder).mkdir()
    run("writer.py")
    shards = [f"shard-{rank}" for rank in range(N_RANKS)]
    assert (tmp_path / "fast" / "index").read_text() == "[15, 15, 15, 15]"
    assert not list((tmp_path / "safe").iterdir())

    (tmp_path / "fast" / "index").unlink()
    (tmp_path / "fast" / "shard-1").unlink()
    (tmp_path / "fast" / "shard-1").mkdir()
    job = run("writer.py")
    assert job.outs[0] == "fast: step 'save' failed on rank 1 (1 of 4)\n"
    assert not (tmp_path / "fast" / "index").exists()
    names = sorted(path.name for path in (tmp_path / "safe").iterdir())
    assert names == ["index", *shards]

    (tmp_path / "safe" / "shard-3").unlink()
    (tmp_path / "safe" / "shard-3").mkdir()
    job = run("writer.py", codes=[1] * N_RANKS)
    assert [err.strip() for err in job.errs] == ["no checkpoint was written"] * N_RANKS


def test_code_that_catches_its_exceptions_itself(run):
    job = run("caught.py")
    assert job.outs == ["ranks (2,) have no setting, all use 1\n", "", "", ""]


def test_a_hang_ends_with_the_report_that_is_shown(tmp_path):
    (tmp_path / "hang.py").write_text(GUIDE.programs["hang.py"])
    ended = mpirun.run(N_RANKS, ["hang.py"], deadline_s=DEADLINE_S, cwd=tmp_path)
    assert not ended.timed_out
    assert ended.returncode != 0
    assert is_told("Past it, the job is ended", ended.stderr, tmp_path), ended.stderr


def test_the_command_lines_are_understood():
    """What stands behind `allraise run` is options of it, and then a program."""
    lines = [line for line in GUIDE.commands if " run " in line]
    assert [line.split()[0] for line in lines] == ["mpiexec", "srun"]
    for line in lines:
        words = shlex.split(line.partition(" -m allraise run ")[2])
        options, program = split_program(words)
        assert options == ["--report", "report-{jobid}.json"]
        assert program == ("job.py",)


def test_the_table_names_what_is_public():
    table = Page.read("docs/names.md").text
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {
        re.match(r"\w*", name)[0]
        for cell in first_cells
        for name in re.findall(r"`([^`]+)`", cell)
    }
    assert named - {"allraise", ""} == set(allraise.__all__)


def test_the_guide_is_short():
    assert len(GUIDE.text.splitlines()) < 200
