"""Every example does what its docstring shows."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import apart

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEADLINE_S = 90.0


def run(name, *arguments, n_ranks=4, deadline_s=DEADLINE_S):
    program = [str(EXAMPLES / name), *map(str, arguments)]
    job = apart.run(n_ranks, program, deadline_s=deadline_s)
    assert job.left == []
    return job


def shown_in_docstring(name, command_end):
    """Return the output that an example's docstring shows below a command."""
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text()))
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.startswith("    $ ") and line.endswith(command_end):
            break
    shown = []
    for line in lines:
        if line and not line.startswith("    "):
            break
        if line.strip() not in {"", "..."}:
            shown.append(line.strip())
    assert shown
    return shown


def assert_shown(name, command_end, output):
    """Each line of the docstring is printed, in that order."""
    printed = iter(output.replace(f"{EXAMPLES}/", "examples/").splitlines())
    stripped = (line.strip() for line in printed)
    for line in shown_in_docstring(name, command_end):
        assert line in stripped, f"not printed, or not in this place: {line}\n{output}"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "with a space"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_checkpoint_writer_publishes_what_reads_back_equal(root):
    job = run("checkpoint_writer.py", root)
    assert (job.codes, job.timed_out) == ([0] * 4, False), job.errs
    assert_shown("checkpoint_writer.py", "checkpoints", job.outs[0])
    assert job.outs[1:] == [""] * 3
    index = json.loads((root / "index.json").read_text())
    assert index["number"] == 1
    files = [entry["file"] for entry in index["shards"]]
    assert files == names_in(root / "checkpoint-1")
    assert len(files) == 4


@pytest.mark.parametrize("failing", [[0], [1, 3], [0, 1, 2, 3]], ids=str)
def test_a_checkpoint_of_which_a_shard_fails_is_not_published(root, failing):
    assert run("checkpoint_writer.py", root).codes == [0] * 4
    before = (root / "index.json").read_bytes()
    job = run("checkpoint_writer.py", root, "--fail-ranks", ",".join(map(str, failing)))
    assert (job.codes, job.timed_out) == ([1] * 4, False), job.errs
    if failing == [1, 3]:
        assert_shown("checkpoint_writer.py", "--fail-ranks 1,3", job.outs[0])
    report = job.outs[0]
    assert report.startswith(f"CheckpointException ranks:dict_keys({failing})\n")
    assert [rank for rank in range(4) if f"(RANK {rank})" in report] == failing
    assert report.count("OSError: [Errno 27] File too large\n") == len(failing)
    assert report.endswith("checkpoint 1: 4 shards still read back and equal\n")
    assert job.outs[1:] == [""] * 3
    assert (root / "index.json").read_bytes() == before
    assert names_in(root) == ["checkpoint-1", "index.json"]
    again = run("checkpoint_writer.py", root)
    assert again.outs[0] == "checkpoint 2: 4 shards published, read back and equal\n"


def test_a_first_checkpoint_that_fails_leaves_nothing(root):
    job = run("checkpoint_writer.py", root, "--fail-ranks", "1")
    assert job.codes == [1] * 4, job.errs
    assert job.outs[0].endswith("checkpoint 1: nothing published\n")
    assert names_in(root) == []


def test_the_mpiio_writer_publishes_what_was_verified(tmp_path):
    target = tmp_path / "state.bin"
    job = run("mpiio_writer.py", target)
    assert (job.codes, job.timed_out) == ([0] * 4, False), job.errs
    shown = job.outs[0].replace(str(target), "state.bin")
    assert_shown("mpiio_writer.py", "state.bin", shown)
    assert target.stat().st_size == 4 * 800_000
    assert names_in(tmp_path) == ["state.bin"]


@pytest.mark.parametrize(
    ("option", "steps"),
    [
        (["--fail-ranks", "1,3"], {"read input"}),
        # Who is told of a full disk, and when, differs between runtimes.
        (["--quota", "1000000"], {"write", "close", "verify"}),
        (["--quota", "1000"], {"write", "close", "verify"}),
    ],
    ids=["input", "quota", "small quota"],
)
def test_a_shared_file_of_which_a_part_fails_is_not_published(tmp_path, option, steps):
    target = tmp_path / "state.bin"
    target.write_text("the one before")
    job = run("mpiio_writer.py", target, *option)
    assert (job.codes, job.timed_out) == ([1] * 4, False), (job.errs, job.launcher)
    shown = job.outs[0].replace(str(target), "state.bin")
    if option[0] == "--fail-ranks":
        assert_shown("mpiio_writer.py", "--fail-ranks 1,3", shown)
    ends = {f"state.bin: step {step!r} failed, nothing published" for step in steps}
    assert shown.splitlines()[-1] in ends
    assert target.read_text() == "the one before"
    assert names_in(tmp_path) == ["state.bin"]


@pytest.mark.parametrize("name", ["state.part", "state.dat"])
def test_a_shared_file_of_any_name_stays_where_the_next_one_fails(tmp_path, name):
    """Also one that is called as the part of another would be."""
    for file in ("state.part", "state.dat"):
        (tmp_path / file).write_text(f"the {file} before")
    job = run("mpiio_writer.py", tmp_path / name, "--quota", "1000", n_ranks=2)
    assert job.codes == [1] * 2, job.errs
    for file in ("state.part", "state.dat"):
        assert (tmp_path / file).read_text() == f"the {file} before"
    assert names_in(tmp_path) == ["state.dat", "state.part"]


@pytest.mark.parametrize("n_ranks", [1, 4])
def test_a_checkpoint_of_another_number_of_ranks_is_told_on_every_rank(root, n_ranks):
    assert run("checkpoint_writer.py", root, n_ranks=2).codes == [0] * 2
    job = run("checkpoint_writer.py", root, "--fail-ranks", "0", n_ranks=n_ranks)
    assert (job.codes, job.timed_out) == ([1] * n_ranks, False), job.errs
    assert "checkpoint 2: nothing published\n" in job.outs[0]
    everybody = {1: "rank 0", 4: "ranks 0-3 (4 of 4)"}[n_ranks]
    text = f"ValueError: checkpoint 1 is of 2 ranks, this job has {n_ranks}\n"
    assert f"=== {everybody}: {text}" in job.outs[0]
    assert job.outs[0].endswith(text)
    assert job.outs[1:] == [""] * (n_ranks - 1)
    job = run("checkpoint_writer.py", root, n_ranks=n_ranks)
    assert job.codes == [0] * n_ranks
    assert f"checkpoint 2: {n_ranks} shards published, read back" in job.outs[0]


def test_with_a_guard_one_rank_that_raises_ends_all():
    job = run("one_rank_raises.py", "--guard")
    assert (job.codes, job.timed_out) == ([1] * 4, False)
    assert_shown("one_rank_raises.py", "--guard", job.errs[0])
    assert job.outs == [""] * 4


def test_without_a_guard_one_rank_that_raises_hangs_the_others():
    job = run("one_rank_raises.py", deadline_s=30)
    assert job.timed_out
    assert "KeyError: 2" in job.errs[2]
    assert job.outs == [""] * 4


def test_the_demo_shows_and_checks_the_main_job():
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert_shown("demo.py", "demo.py", ended.stdout)


@pytest.mark.parametrize(
    "broken",
    [
        {"codes": [1, 0, 1, 1]},
        {"codes": [1, None, 1, 1]},
        {"outs": ["no report", "", "", ""]},
        {"left": [12345]},
    ],
    ids=str,
)
def test_the_demo_fails_where_something_does_not_hold(monkeypatch, capsys, broken):
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    good = {
        "codes": [1] * 4,
        "outs": ["", "", "", ""],
        "errs": [""] * 4,
        "launcher": "",
        "returncode": 1,
        "left": [],
        "timed_out": False,
    }
    block = "(RANK {})\nOSError: [Errno 27] File too large\n"
    report = block.format(1) + block.format(3) + ": 4 shards still read back and equal"

    def run_writer(folder, *options):
        if not options:
            (folder / "index.json").write_text("{}")
            (folder / "checkpoint-1").mkdir()
            return apart.Job(**{**good, "codes": [0] * 4})
        return apart.Job(**{**good, "outs": [report, "", "", ""], **given})

    monkeypatch.setattr(demo, "run_writer", run_writer)
    given = {}
    assert demo.main() == 0
    given = broken
    assert demo.main() == 1
    assert "NOT SO: " in capsys.readouterr().out
