"""``allraise run``: one report, the right exit code, and never a hang."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

import allraise
import mpirun
from allraise.page import page_of
from allraise.remains import load_spool
from allraise.spool import folder_of

JOB = str(Path(__file__).parent / "programs" / "job.py")
HEADLINE = "allraise: "
DEADLINE_S = 60.0


@pytest.fixture
def report_path(tmp_path):
    return tmp_path / "report.json"


@pytest.fixture
def run(report_path):
    """Run the job with a fault; the report may come soon after the failure."""

    def run_job(*fault, n=3, grace="1", env=None, options=()):
        command = ["-m", "allraise", "run", "--grace", grace]
        command += ["--report", str(report_path), *options, JOB, *fault]
        ended = mpirun.run(n, command, deadline_s=DEADLINE_S, env=env)
        assert not ended.timed_out, ended.output
        return ended

    return run_job


def kinds(path):
    """Return what the report says of each rank."""
    found = {}
    for ranks, record in allraise.load_report(path).bundle.records():
        for rank in ranks:
            found.setdefault(rank, []).append((record.kind, record.links[0].type_name))
    return found


FAILED = [("failure", "ValueError")]
WAITED = [("blocked", "blocked")]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("fault", ["nothing", "all_exit0", "own_sigterm", "forked"])
def test_a_job_that_ends_well_is_untouched(run, report_path, fault, n):
    ended = run(fault, n=n)
    assert ended.returncode == 0, ended.output
    assert ended.stdout.count("passed") == n
    assert HEADLINE not in ended.output
    assert not report_path.exists()


def test_a_job_prints_what_it_prints_without_allraise(run, tmp_path):
    plain = mpirun.run(3, [JOB, "nothing"], deadline_s=DEADLINE_S)
    ended = run("nothing")
    # Ranks print in any order; MPICH's mpiexec may even join their lines.
    assert sorted(ended.stdout) == sorted(plain.stdout)
    assert ended.stderr == plain.stderr


def test_the_sigterm_handler_and_children_of_a_program_are_its_own(run):
    assert run("own_sigterm").stdout.count("handled [15]") == 3
    assert run("forked").stdout.count(f"ended with {-signal.SIGTERM}") == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_fails_and_the_others_are_shown_where_they_wait(
    run, report_path, rank
):
    ended = run("root" if rank == 0 else "one")
    assert ended.returncode == 1
    assert ended.stderr.count(HEADLINE) == 1
    assert f"(RANK {rank})" in ended.stderr
    assert f"ValueError: wrong on rank {rank}" in ended.stderr
    others = [r for r in range(3) if r != rank]
    assert kinds(report_path) == {rank: FAILED} | dict.fromkeys(others, WAITED)
    assert ended.stderr.count("blocked: in comm.Barrier()") == 1  # said once
    assert "launcher.py" not in ended.stderr  # nor is allraise's own part shown
    assert "runpy" not in ended.stderr


def test_failures_within_the_grace_period_are_in_one_report(run, report_path):
    ended = run("late", grace="3")
    assert ended.stderr.count(HEADLINE) == 1
    assert "the first" in ended.stderr
    assert "the second" in ended.stderr
    assert kinds(report_path)[2] == [("failure", "KeyError")]


def test_the_grace_period_ends_when_every_rank_has_failed(run, report_path):
    ended = run("every", grace="50")
    assert ended.returncode == 1
    assert kinds(report_path) == dict.fromkeys(range(3), FAILED)


def test_one_rank_fails_to_import_before_mpi_is_there(run, report_path):
    ended = run("import")
    assert ended.returncode == 1
    assert "No module named 'a_module_that_is_not_there'" in ended.stderr
    assert kinds(report_path)[1] == [("failure", "ModuleNotFoundError")]
    assert kinds(report_path)[0] == WAITED


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("exit3", 3),
        ("exit256", 1),  # a shell would see 0
        ("exit_text", 1),
        ("interrupt", 128 + signal.SIGINT),
    ],
)
def test_the_job_ends_with_the_code_that_was_meant(run, report_path, fault, code):
    ended = run(fault)
    assert ended.returncode == code
    assert f"exit code {code}" in ended.stderr
    saved = json.loads(report_path.read_text())
    assert saved["environment"]["exit_code"] == code


def test_a_job_of_one_rank_ends_with_its_code_and_no_abort(run, report_path):
    ended = run("every", n=1)
    assert ended.returncode == 1
    assert "Abort" not in ended.output.replace("MPI_ABORT", "Abort")
    assert kinds(report_path) == {0: FAILED}


def test_exit_with_0_while_the_others_wait_is_told_and_ended(run, report_path):
    ended = run("exit0")
    assert ended.returncode == 1
    assert "the others waited for ranks that had left: 1, exit code 1" in ended.stderr
    found = kinds(report_path)
    assert found[1] == [("finished", "SystemExit")]
    assert found[0] == found[2] == WAITED


@pytest.mark.parametrize("where", ["first", "later", "g.comm"])
def test_exit_with_0_while_the_others_wait_in_a_guard_is_told_and_ended(
    run, report_path, where
):
    ended = run("exit0_before_a_guard", where)
    assert ended.returncode == 1
    assert "the others waited for ranks that had left: 1, exit code 1" in ended.stderr
    found = kinds(report_path)
    assert found[1] == [("finished", "SystemExit")]
    assert found[0] == found[2] == WAITED
    # The place of a `with` is the call in it for some versions of Python.
    told = {
        "first": r"in (a guard, waiting for other ranks|allraise.guard\(.*\))\n",
        "later": r"in (the guard of step 'save', waiting .*|allraise.guard\(.*\))\n",
        "g.comm": r"in g.comm\n",  # the first use comes to terms with the others
    }
    assert len(re.findall(f"blocked: {told[where]}", ended.stderr)) == 1, ended.stderr


def test_an_early_exit_lets_the_others_work(run, report_path):
    """Longer than it takes to end a job that waits for a rank that has left.

    In a guard of theirs, and out of any.
    """
    ended = run("early_and_healthy", "15")
    assert ended.returncode == 0, ended.output
    assert ended.stdout.count("is done") == 2
    assert not report_path.exists()


def test_an_exception_in_a_thread_is_told_if_the_job_fails(run, report_path):
    assert run("thread").returncode == 0
    assert not report_path.exists()
    assert run("thread", "and fail").returncode == 1
    assert kinds(report_path)[1] == [*FAILED, ("thread", "ZeroDivisionError")]


def test_an_exception_at_exit_is_told_if_the_others_wait(run, report_path):
    assert run("at_exit").returncode == 1
    assert ("atexit", "RuntimeError") in kinds(report_path)[1]


def test_an_agreed_failure_is_shown_once(run, report_path):
    ended = run("guard")
    assert ended.returncode == 1
    assert "2 of 3 ranks failed in step 'write shards'" in ended.stderr
    assert ended.stderr.count("OSError: [Errno 28]") == 2  # a block a failed rank
    assert set(kinds(report_path)) == {1, 2}
    report = allraise.load_report(report_path)
    assert report.step == "write shards"
    assert 'title="rank 0: did not fail"' in page_of(report)


def test_an_agreed_failure_of_a_part_has_the_ranks_of_the_whole(run, report_path):
    run("guard_split", n=4)
    assert kinds(report_path) == {
        1: [("failure", "OSError")],
        0: WAITED,
        2: WAITED,
    }


def test_what_was_raised_from_an_agreed_failure_does_not_hide_it(run, report_path):
    """Nor is it hidden by that."""
    ended = run("raised_from")
    own = ("failure", "RuntimeError")
    both = [("failure", "OSError"), own]
    assert kinds(report_path) == {0: [own], 1: both, 2: both}
    assert "failed in step 'write shards'" in ended.stderr
    text = allraise.load_report(report_path).text("groups")
    assert text.index("=== ranks 1-2 (2 of 3): OSError") < text.index(
        "=== ranks 0-2 (3 of 3): RuntimeError: giving up"
    )


ANEW = ("failure", "OSError")
HANDLED = ("handled", "ValueError")


def chain_of(path, rank, type_name):
    """Return the types in the chain of what a rank has raised."""
    for ranks, record in allraise.load_report(path).bundle.records():
        if rank in ranks and record.links[0].type_name == type_name:
            return [link.type_name for link in record.links]
    return []


def test_what_a_rank_raises_while_it_handles_its_own_agreed_failure_is_told(
    run, report_path
):
    ended = run("after_handling", "1")
    assert "allraise: 1 of 3 ranks failed, exit code 1" in ended.stderr
    assert "OSError: [Errno 28] No space left on device" in ended.stderr
    assert kinds(report_path) == {0: WAITED, 1: [ANEW], 2: WAITED}
    assert chain_of(report_path, 1, "OSError") == [
        "OSError",
        "allraise.CheckpointError",
        "ValueError",
    ]


@pytest.mark.parametrize("woken", [[], ["woken"]])
@pytest.mark.parametrize("rank", [0, 2])
def test_what_a_rank_raises_while_it_handles_the_failure_of_another_is_told(
    run, report_path, rank, woken
):
    """And which failure that was; no rank has ended of it."""
    ended = run("after_handling", str(rank), *woken)
    assert "allraise: 1 of 3 ranks failed, exit code 1" in ended.stderr
    assert f"(RANK {rank})" in ended.stderr
    assert "OSError: [Errno 28] No space left on device" in ended.stderr
    assert "=== rank 1 (1 of 3): ValueError: the first failure [handled]" in (
        ended.stderr
    )
    assert kinds(report_path) == {rank: [ANEW], 1: [*WAITED, HANDLED], 2 - rank: WAITED}


def test_what_one_rank_raises_is_told_where_the_others_let_the_agreed_failure_out(
    run, report_path
):
    ended = run("anew_among_others")
    assert "1 of 3 ranks failed in step 'first'" in ended.stderr
    assert kinds(report_path) == {1: [ANEW]}
    assert chain_of(report_path, 1, "OSError")[-1] == "ValueError"


def test_what_one_rank_raises_from_an_agreed_failure_is_told_beside_it(
    run, report_path
):
    ended = run("from_agreed_on_one")
    assert "1 of 3 ranks failed in step 'first'" in ended.stderr
    found = kinds(report_path)
    assert found[1] == [("failure", "ValueError"), ANEW]
    assert ended.stderr.count("ValueError: the first failure") == 1
    assert ended.stderr.count("OSError: [Errno 28] No space left on device") == 1


def test_a_failure_that_others_end_of_is_told_where_its_rank_tells_nothing_of_it(
    run, report_path
):
    run("from_none")
    assert kinds(report_path) == {1: [ANEW, ("failure", "ValueError")]}


def test_an_exit_from_an_agreed_failure_tells_the_failure_and_has_its_code(
    run, report_path
):
    ended = run("exit_after_agreed")
    assert ended.returncode == 3
    assert "in step 'first', exit code 3" in ended.stderr
    own = ("failure", "SystemExit")
    assert kinds(report_path) == {
        0: [own],
        1: [("failure", "ValueError"), own],
        2: [own],
    }


def test_of_a_rank_in_two_agreed_failures_both_are_told_where_both_ended_ranks(
    run, report_path
):
    run("two_agreed")
    assert kinds(report_path) == {1: [ANEW, ("failure", "ValueError")]}


def stacks_of(path, rank):
    """Return the files of each link of what is told of a rank."""
    for ranks, record in allraise.load_report(path).bundle.records():
        if rank in ranks:
            return [
                {Path(frame.filename).name for frame in link.frames}
                for link in record.links
            ]
    return []


@pytest.mark.parametrize(
    ("fault", "rank", "line"),
    [
        (["woken"], 0, "    g.comm.allreduce(1)\n"),
        (["woken", "and fail"], 0, "    g.comm.allreduce(1)\n"),
        (["after_handling", "1"], 1, "    with allraise.guard(comm, "),
        (["wrong_length"], 0, "    steps.reduce_scatter("),
        (["refused"], 1, "    with allraise.guard(comm, "),
    ],
)
def test_what_allraise_raises_is_told_by_the_line_of_the_user(
    run, report_path, fault, rank, line
):
    ended = run(*fault)
    assert line in ended.stderr
    assert "/allraise/" not in ended.stderr
    found = stacks_of(report_path, rank)
    assert found == [{"job.py"}] * len(found)


def test_what_allraise_only_passes_on_is_told_with_its_lines(run, report_path):
    """It may be a defect of allraise's."""
    run("refused_by_mpi")
    assert "messaging.py" in stacks_of(report_path, 1)[0]


def test_the_excepthook_of_the_program_is_called_after_the_report(run):
    ended = run("hook")
    assert "the hook of rank 1 saw ValueError" in ended.stdout
    assert ended.returncode == 1
    ended = run("aborting_hook")
    assert ended.stderr.count(HEADLINE) == 1
    assert ended.returncode == 5


def test_what_was_printed_before_is_not_lost(run):
    assert run("unprinted").stdout.count("was here") == 3


def test_a_failure_after_mpi_is_told(run, report_path):
    ended = run("finalized")
    assert ended.returncode == 1
    assert "ValueError: too late for MPI" in ended.stderr


def test_where_the_root_cannot_the_failed_rank_reports(run, report_path):
    """And where the root holds the interpreter."""
    ended = run("root_holds_the_gil")
    assert ended.returncode == 1
    assert ended.stderr.count(HEADLINE) == 1
    assert kinds(report_path) == {0: [("silent", "silent")], 1: FAILED, 2: WAITED}
    assert "silent: no answer: C code holds the GIL, from the call" in ended.stderr
    assert ", in root_holds_the_gil\n    ctypes.PyDLL(None)" in ended.stderr


def test_a_hostile_message_is_shown_and_not_obeyed(run):
    ended = run("hostile")
    assert "\x1b" not in ended.stderr
    assert r"\x1b[2J\x1b]0;owned\x07\u202etxt\x00\udcff" in ended.stderr
    assert "\n| Traceback (most recent call last): (RANK 5)\n" in ended.stderr


@pytest.mark.parametrize(
    ("fault", "name"), [("hostile_class", "Hostile"), ("hostile_exit", "NoCode")]
)
def test_an_exception_that_cannot_be_asked_is_told(run, report_path, fault, name):
    ended = run(fault)
    assert ended.returncode == 1
    assert kinds(report_path) == {
        0: WAITED,
        1: [("failure", name)],
        2: WAITED,
    }


@pytest.mark.parametrize("level", ["single", "funneled", "serialized"])
def test_below_thread_multiple_files_carry_the_report(run, report_path, level):
    ended = run("one", env={"MPI4PY_RC_THREAD_LEVEL": level})
    assert ended.returncode == 1
    assert kinds(report_path) == {1: FAILED, 0: WAITED, 2: WAITED}
    assert list(report_path.parent.iterdir()) == [report_path]


@pytest.mark.parametrize("style", ["ranks", "groups", "tree"])
def test_the_style_is_as_asked(run, style):
    ended = run("every", options=["--style", style])
    marks = {"ranks": "(RANK 2)", "groups": "=== ranks 0-2", "tree": "  [0-2]\n"}
    for name, mark in marks.items():
        assert (mark in ended.stderr) == (name == style)


def test_nine_failed_ranks_are_shown_in_groups(run):
    ended = run("every", n=9)
    assert "=== ranks 0-8 (9 of 9): ValueError" in ended.stderr
    assert ended.stderr.count("Traceback (most") == 1


def test_a_module_and_a_command_can_be_run(tmp_path):
    (tmp_path / "failing.py").write_text("raise ValueError('in a module')\n")
    for program in (["-m", "failing", "x"], ["-c", "raise ValueError('in a module')"]):
        ended = mpirun.run(
            2, ["-m", "allraise", "run", *program], deadline_s=60, cwd=tmp_path
        )
        assert ended.returncode == 1
        assert ended.stderr.count(HEADLINE) == 1
        assert "ValueError: in a module" in ended.stderr


def test_a_report_that_cannot_be_written_there_is_written_elsewhere(run, tmp_path):
    (tmp_path / "file").touch()
    ended = run("one", options=["--report", str(tmp_path / "file" / "report.json")])
    line = next(x for x in ended.stderr.splitlines() if x.startswith("report: "))
    assert "not where asked: NotADirectoryError" in line
    assert f"'{tmp_path / 'file'}')" in line
    saved = Path(line.removeprefix("report: ").partition(" (not")[0])
    assert allraise.load_report(saved).failed_ranks.first == 1


@pytest.mark.parametrize("level", ["multiple", "serialized"])
def test_the_folders_of_the_report_are_made(run, tmp_path, level):
    """Also by files, which carry it below THREAD_MULTIPLE."""
    path = tmp_path / "not" / "there" / "report.json"
    env = {"MPI4PY_RC_THREAD_LEVEL": level}
    ended = run("one", options=["--report", str(path)], env=env)
    assert f"report: {path}\n" in ended.stderr
    assert "dying ranks" not in ended.stderr
    assert kinds(path)[1] == FAILED
    assert list(path.parent.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [tmp_path / "not"]


def test_a_job_that_ends_well_makes_no_folder_for_its_report(run, tmp_path):
    path = tmp_path / "not" / "there" / "report.json"
    assert run("nothing", options=["--report", str(path)]).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_fifo_gets_the_report_and_stays_one(run, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ended = run("one", options=["--report", str(fifo)])
        got = os.read(reader, 1_000_000)
    finally:
        os.close(reader)
    assert f"report: {fifo}\n" in ended.stderr
    assert json.loads(got)["format"] == "allraise-report"
    assert fifo.is_fifo()


def test_a_report_to_standard_output_is_printed(run):
    ended = run("one", options=["--report", "/dev/stdout"])
    assert "report: /dev/stdout\n" in ended.stderr
    begin = ended.stdout.index('{\n "format": "allraise-report"')
    assert json.JSONDecoder().raw_decode(ended.stdout[begin:])[0]["size"] == 3


FAILS_ALONE = """
import allraise.beside
from allraise.__main__ import main

def fail(path):
    raise FileNotFoundError("the folder of the process is gone")

allraise.beside.folder_for = fail
main()
"""


@pytest.mark.parametrize("level", ["multiple", "serialized"])
def test_what_rank_0_chooses_alone_fails_on_every_rank(level, tmp_path):
    env = {"MPI4PY_RC_THREAD_LEVEL": level}
    command = ["-c", FAILS_ALONE, "run", JOB, "nothing"]
    ended = mpirun.run(2, command, deadline_s=DEADLINE_S, env=env, cwd=tmp_path)
    assert not ended.timed_out, ended.output
    assert ended.returncode == 2, ended.output
    text = "no folder for what dying ranks leave: FileNotFoundError: the folder of the"
    assert ended.stderr.count(text) == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("path", [".", "./", "/", "folder"])
def test_a_folder_in_place_of_the_report_is_refused_on_every_rank(tmp_path, path):
    """Where rank 0 alone raised, the others waited in a broadcast."""
    (tmp_path / "folder").mkdir()
    command = ["-m", "allraise", "run", "--report", path, JOB, "nothing"]
    ended = mpirun.run(2, command, deadline_s=DEADLINE_S, cwd=tmp_path)
    assert not ended.timed_out, ended.output
    assert ended.returncode == 2, ended.output
    assert f"must be that of a file, {path!r} is a folder" in ended.stderr
    assert [found.name for found in tmp_path.iterdir()] == ["folder"]


def test_the_path_of_the_report_has_placeholders(run, tmp_path):
    path = tmp_path / "{jobid}-{step}.json"
    run("guard", options=["--report", str(path)], env={"SLURM_JOB_ID": "42"})
    assert (tmp_path / "42-write-shards.json").exists()


def start_and_wait_until_ready(report_path, fault="sigterm"):
    """Start a job that waits, and return mpiexec and the pid of each rank."""
    command = ["-m", "allraise", "run", "--report", str(report_path), JOB, fault]
    process = mpirun.start(
        3,
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    pids = {}
    for line in process.stdout:
        # MPICH's mpiexec may join the lines of two ranks.
        pids |= {int(r): int(p) for r, p in re.findall(r"ready (\d+) (\d+);", line)}
        if len(pids) == 3:
            break
    return process, pids


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_is_told_with_all_stacks(report_path, number, rank):
    process, pids = start_and_wait_until_ready(report_path)
    try:
        os.kill(pids[rank], number)
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        mpirun.kill_session(process.pid)
    assert process.returncode == 128 + number, output
    assert output.count(HEADLINE) == 1
    found = kinds(report_path)
    assert set(found) == {0, 1, 2}
    # Python's own handler raises it where the rank is not blocked in MPI.
    assert found[rank][0][1] in {number.name, "KeyboardInterrupt"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fault", ["in_a_step", "in_the_first_guard"])
def test_a_signal_is_told_where_python_handlers_are_held_back(
    report_path, fault, number
):
    process, pids = start_and_wait_until_ready(report_path, fault)
    try:
        time.sleep(1)  # now it waits there
        os.kill(pids[0], number)
        output, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        mpirun.kill_session(process.pid)
    assert process.returncode == 128 + number, output
    found = kinds(report_path)
    assert set(found) == {0, 1, 2}
    assert found[0][0][1] == number.name
    assert stacks_of(report_path, 0) == [{"job.py"}]


def test_sigterm_to_mpiexec_leaves_all_stacks(report_path):
    """As a scheduler does it at the time limit; mpiexec kills the ranks soon.

    In a quarter of a second (Open MPI 5): so in a report, or in the folder.
    """
    process, _ = start_and_wait_until_ready(report_path)
    try:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_S)
    finally:
        mpirun.kill_session(process.pid)
    assert process.returncode != 0
    if report_path.exists():
        report = allraise.load_report(report_path)
    else:
        report = load_spool(folder_of(report_path))
    told = {tuple(ranks): record for ranks, record in report.bundle.records()}
    assert {rank for ranks in told for rank in ranks} == {0, 1, 2}
    assert {record.links[0].type_name for record in told.values()} == {"SIGTERM"}
    # Where in there, they were told before they came to it: at the barrier or not yet.
    for record in told.values():
        names = [frame.name for frame in record.links[0].frames]
        assert names == ["<module>", "sigterm"]
    assert "in <module>  [0-2]\n" in report.text("tree")


def test_wrong_options_are_refused_with_the_right_ones():
    for options, text in [
        ([], "no program to run"),
        (["nowhere.py"], "there is no program 'nowhere.py'"),
        (["-m"], "option -m needs an argument"),
        (["--grace", "never", JOB], "positive number of seconds"),
        (["--report", "{node}.json", JOB], "knows {jobid}, {step}, {time}"),
        (["--style", "art", JOB], "'ranks', 'groups', 'tree'"),
    ]:
        ended = mpirun.run(1, ["-m", "allraise", "run", *options], deadline_s=60)
        assert ended.returncode == 2, ended.output
        assert text in ended.stderr


def test_a_bad_environment_is_refused():
    ended = mpirun.run(
        1, ["-m", "allraise", "run", JOB, "nothing"], env={"ALLRAISE_STYLE": "art"}
    )
    assert ended.returncode == 2
    assert "ALLRAISE_STYLE must be one of ranks, groups, tree" in ended.stderr
