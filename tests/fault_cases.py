"""The fault matrix: what goes wrong, what must be shown, and how the job must end.

A table, and how one row of it is run. The program is
``tests/launch/programs/faults.py``; ``tests/launch/test_fault_matrix.py`` holds
each row to its word, and ``benchmarks/fault_matrix.py`` writes what came of them
into ``docs/fault-matrix.md``.
"""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import allraise
import mpirun
from allraise.remains import load_spool
from allraise.spool import folder_of

PROGRAM = Path(__file__).parent / "launch" / "programs" / "faults.py"
N_RANKS = 4

# Until the last rank has ended. Alone on a machine a job takes two seconds, most
# of them to start; tests share theirs.
SOON_S = 60.0
# Of the rows that wait for a deadline: its seconds, what the verdict may take, and
# for those that write much, the writing.
LIMIT_S = 6
LIMITED_S = SOON_S + LIMIT_S + 30
HUGE_S = SOON_S + 60

TIMED = ("--timeout", str(LIMIT_S))
RUN = ("-m", "allraise", "run")
ULFM = ("--with-ft", "ulfm")


@dataclass(frozen=True)
class Fault:
    """A row.

    Attributes:
        told: The fault, for a reader.
        words: The arguments of ``faults.py``.
        shows: All of these are in the output or the report file; a tuple among them: one of it.
        hides: None of these is.
        fails: Whether the exit code is not 0.
        within_s: After how long the last rank must have ended, at the latest.
        run: Whether under ``allraise run``.
        slow: Whether it waits for seconds, by its nature.
        exempt: Where the exit code is not held to anything, by the start of the
            launcher's name, and why.
    """

    told: str
    words: tuple[str, ...]
    shows: tuple[str | tuple[str, ...], ...] = ()
    hides: tuple[str, ...] = ()
    fails: bool = True
    within_s: float = SOON_S
    run: bool = False
    slow: bool = False
    exempt: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name it in one line, as tests do."""
        return " ".join(["run:"] * self.run + list(self.words))

    @property
    def only_here(self) -> bool:
        """Whether there is no such fault without allraise."""
        return self.words[0] == "report_fails"

    @property
    def causes(self) -> list[tuple[str, ...]]:
        """Return what tells the fault itself, with or without allraise."""
        entries = [(e,) if isinstance(e, str) else e for e in self.shows]
        own = [entry for entry in entries if "broken on rank" in entry[0]]
        return own or entries[:1]


def broken(*ranks: int) -> tuple[str, ...]:
    """Return what shows that the failures of these ranks are told, by the root."""
    own = [text for r in ranks for text in (f"(RANK {r})", f"broken on rank {r}")]
    return (*own, ", in fail\n")


def agreed(*ranks: int) -> tuple[str, ...]:
    """Return what shows that all raised the failures of these ranks."""
    return (*broken(*ranks), f"CheckpointException ranks:dict_keys({list(ranks)})")


NEVER_WELL = "is in the block"
GOES_ON = "goes on"

WHO = {
    (1,): "rank 1",
    (0,): "the root",
    (1, 2): "ranks 1 and 2",
    (0, 1, 2, 3): "all ranks",
}


def _on(ranks: tuple[int, ...]) -> tuple[str, str]:
    return "--on", ",".join(map(str, ranks))


def _nested() -> list[Fault]:
    return [
        Fault(
            f"{who} fail{'s' if who in (WHO[1,], WHO[0,]) else ''} {where} a nested guard",
            ("nested", where, *_on(ranks)),
            agreed(*ranks),
        )
        for where in ("before", "inside", "after")
        for ranks, who in WHO.items()
    ]


def _communicators() -> list[Fault]:
    kinds = {
        "split_in_world": "a guard on a half of the ranks in one on all",
        "overlapping_splits": "guards on overlapping pairs in one on all",
        "world_in_split": "a guard on all ranks in one on a half in one on all",
    }
    found = [
        Fault(
            f"rank 1 fails {where} {kind}",
            (case, where),
            ("broken on rank 1", "(RANK 1)", ", in fail\n"),
        )
        for case, kind in kinds.items()
        for where in ("before", "inside", "after")
    ]
    found += [
        Fault(
            f"rank 1 fails {where} a guard on all ranks in one on a half alone",
            ("world_in_split_alone", where),
            ("broken on rank 1", ", in fail\n"),
        )
        for where in ("inside", "after")
    ]
    # The others in the inner guard are not all in the outer one, so they cannot
    # know of its failure: the ranks wait for each other in two guards.
    found += [
        Fault(
            "rank 1 fails before a guard on all ranks in one on a half (deadline)",
            ("world_in_split_alone", "before", *TIMED),
            ("passed its deadline", "broken on rank 1", ", in fail\n", "in nest"),
            within_s=LIMITED_S,
            slow=True,
        )
    ]
    return found


def _unbalanced() -> list[Fault]:
    mismatch = ("StepMismatchError", "faults.py")
    return [
        Fault("rank 1 skips a guard", ("skipped",), (*mismatch, "'for some'")),
        Fault("rank 1 leaves a loop of guards early", ("loop", "short"), (*mismatch,)),
        Fault("rank 1 fails in a loop of guards", ("loop", "failing"), agreed(1)),
        Fault(
            "rank 1 ends, and comes to no guard (deadline)",
            ("skipped_for_good", *TIMED),
            ("passed its deadline", "rank 1"),
            within_s=LIMITED_S,
            slow=True,
        ),
    ]


def _swallowed() -> list[Fault]:
    return [
        Fault(
            "all ranks swallow the failure of an inner guard",
            ("swallowed", "by all"),
            ("rank 1 passes over CheckpointError", "rank 0 goes on"),
            ("Traceback",),
            fails=False,
        ),
        Fault(
            "the rank that failed in an inner guard swallows that",
            ("swallowed", "by some"),
            agreed(1),
            (GOES_ON,),
        ),
        Fault(
            "ranks in an inner guard swallow a failure further out",
            ("swallowed_outer",),
            agreed(1),
            (GOES_ON,),
        ),
    ]


OPERATIONS = (
    *("barrier", "bcast", "reduce", "allreduce", "gather", "scatter", "alltoall"),
    *("send", "recv", "sendrecv", "probe", "wait"),
)


def _blocked() -> list[Fault]:
    return [
        Fault(
            f"rank 1 fails while its peers are blocked in {operation} on g.comm",
            ("blocked", operation),
            (*broken(1), "PeerFailure"),
        )
        for operation in OPERATIONS
    ]


LEAVES = {
    "exit 0": ("sys.exit(0)", "SystemExit: 0"),
    "exit text": ("sys.exit('text')", "this is the end"),
    "interrupt": ("KeyboardInterrupt", "KeyboardInterrupt"),
}


def _ends() -> list[Fault]:
    guarded = [
        Fault(
            f"{what} on rank 1, in a guard",
            ("leaves_guarded", word),
            (text, "(RANK 1)", ", in leave_early\n"),
        )
        for word, (what, text) in LEAVES.items()
    ]
    bare = [
        Fault(
            f"{what} on rank 1, while the others wait for it",
            ("leaves", word),
            (text, ", in leave_early\n"),
            run=True,
        )
        for word, (what, text) in LEAVES.items()
    ]
    others = [
        Fault(
            "sys.exit(0) on rank 1, before a guard of the others",
            ("leaves_before_a_guard", "exit 0"),
            ("SystemExit: 0", ", in leave_early\n", "blocked: in "),
            run=True,
        ),
        Fault(
            "rank 1 fails, and frees the communicator of the guard in it",
            ("frees",),
            agreed(1),
        ),
    ]
    return [*guarded, *bare, *others]


def _reports() -> list[Fault]:
    hostile = {
        "no text": "has no text (__str__ raises)",
        "unpicklable": "cannot be pickled",
        "trap": "ends who unpickles it",
        "lock": "holds a lock and a lambda",
        "huge object": "holds 64 MB",
        "huge text": "has a text of 2 MB",
    }
    shown = {"no text": ("NoText", "(RANK 1)", ", in hostile\n")}
    usual = ("broken on rank 1", "(RANK 1)", ", in hostile\n")
    broken_root = {
        "merge": "put the failures together",
        "summary": "tell the others",
        "decode": "read what ranks sent",
        "rebuild": "rebuild an exception",
        "text": "write it",
    }
    found = [
        Fault(
            f"the exception of rank 1 {what}",
            ("hostile", word),
            shown.get(word, usual),
            within_s=HUGE_S if "huge" in word else SOON_S,
        )
        for word, what in hostile.items()
    ]
    found += [
        Fault(
            f"the root fails while it makes the report: cannot {what}",
            ("report_fails", word),
            ("broken on rank 1", ", in fail\n"),
        )
        for word, what in broken_root.items()
    ]
    return found


# In the words of the launcher, or of the survivors where there are any (ULFM).
DEATHS = {
    "SIGKILL": ("signal 9", "SIGNAL: 9", "Killed", "rank 1 died"),
    "SIGSEGV": ("signal 11", "SIGNAL: 11", "Segmentation fault", "rank 1 died"),
    "abort": ("signal 6", "SIGNAL: 6", "Aborted", "rank 1 died"),
}


# Seen with MPICH 5.0.2 in one run of ten, without allraise too.
ENDS_AS_IT_LIKES = "mpiexec kills the other ranks at once, and may end with 0"


def _deaths() -> list[Fault]:
    killed = [
        Fault(
            f"rank 1 is ended by {'abort() in C' if word == 'abort' else word}",
            ("killed", word),
            (texts,),
        )
        for word, texts in DEATHS.items()
    ]
    return [
        *killed,
        Fault(
            "os._exit(0) on rank 1 (deadline)",
            ("killed", "exit", *TIMED),
            within_s=LIMITED_S,
            slow=True,
            exempt={"MPICH": ENDS_AS_IT_LIKES},
        ),
        Fault(
            "SIGTERM to mpiexec, rank 1 asleep and the others in a barrier",
            ("terminated",),
            ("SIGTERM", ", in terminated"),
            run=True,
        ),
        Fault(
            "SIGKILL of rank 1",
            ("killed", "SIGKILL"),
            (DEATHS["SIGKILL"],),
            run=True,
        ),
    ]


def _stuck() -> list[Fault]:
    what = {
        "sleep": ("sleeps for ever", ", in sleeps\n"),
        "gil": ("is in C code that holds the GIL", ", in holds\n"),
        "g.comm": ("waits on g.comm for what nobody sends", "g.comm.recv("),
        "raw": ("waits on the raw communicator for what nobody sends", "raw.recv"),
    }
    return [
        Fault(
            f"rank 1 {told} (deadline)",
            ("stuck", word, *TIMED),
            (
                f"HangError: step 'stuck' was not at its end within {LIMIT_S} s",
                ("(RANK 1)", "=== rank 1 "),
                where,
            ),
            within_s=LIMITED_S,
            slow=True,
        )
        for word, (told, where) in what.items()
    ]


def _outside() -> list[Fault]:
    thread = "Exception in thread"
    return [
        Fault(
            "rank 1 fails, no guard",
            ("uncaught",),
            ("(RANK 1)", "broken on rank 1", ", in fail\n"),
            run=True,
        ),
        Fault(
            "an import fails on rank 1",
            ("import",),
            ("No module named 'a_module_that_is_not_there'", "(RANK 1)"),
            run=True,
        ),
        Fault(
            "an exception in a thread of rank 1",
            ("in_thread",),
            (thread, "broken on rank 1", ", in fail\n"),
            ("CheckpointException",),
            fails=False,
        ),
        Fault(
            "an exception in a thread of rank 1, which then fails",
            ("in_thread", "and fail"),
            (thread, "broken on rank 1", "(RANK 1)"),
            run=True,
        ),
        Fault(
            "rank 1 fails after MPI_Finalize",
            ("finalized",),
            ("broken on rank 1", ", in fail\n"),
        ),
        Fault(
            "rank 1 fails after MPI_Finalize",
            ("finalized",),
            ("broken on rank 1", ", in fail\n"),
            run=True,
        ),
        Fault(
            "a guard after MPI_Finalize",
            ("finalized", "guard"),
            ("MPI has been finalized",),
            (NEVER_WELL,),
        ),
    ]


SECTIONS: dict[str, list[Fault]] = {
    "Guards in guards": [*_nested(), *_swallowed()],
    "Guards on several communicators": _communicators(),
    "Guards that not all ranks enter": _unbalanced(),
    "Peers that are blocked": _blocked(),
    "Exits": _ends(),
    "Hostile exceptions and broken reports": _reports(),
    "Ranks that die": _deaths(),
    "Ranks that are stuck": _stuck(),
    "Outside of guards": _outside(),
}
FAULTS = [fault for faults in SECTIONS.values() for fault in faults]


@cache
def launcher() -> str:
    """Return the name and version of mpiexec, without starting a job."""
    command = [mpirun.find_mpiexec(), "--version"]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**mpirun.RUNTIME_ENV, **os.environ},
    )
    text = ended.stdout + ended.stderr
    for name, pattern in (
        ("Open MPI", r"\((?:Open MPI|OpenRTE)\) ([\d.]+)"),
        ("Intel MPI", r"Intel\(R\) MPI Library.* Version ([\d.]+)"),
        ("MPICH", r"Version: +([\d.]+)"),
    ):
        found = re.search(pattern, text)
        if found:
            return f"{name} {found.group(1)}"
    return f"unknown: {text[:100]!r}"


def has_ulfm() -> bool:
    """Return whether the launcher knows ``--with-ft``: Open MPI 5 alone does."""
    return launcher().startswith("Open MPI 5")


def run(fault: Fault, *, ulfm: bool = False, cwd: Path) -> mpirun.Run:
    """Run a row, in a folder that its report goes to.

    What is in the report counts as shown: a launcher that was told to end may
    forward nothing any more (Open MPI 5). So does what `allraise show` makes of what
    the ranks have left: it kills them a quarter of a second after SIGTERM.
    """
    path = cwd / "report.json"
    options = ["--grace", "1", "--report", str(path)]
    runner = [*RUN, *options] if fault.run else []
    ended = mpirun.run(
        N_RANKS,
        [*runner, str(PROGRAM), *fault.words],
        deadline_s=fault.within_s,
        options=list(ULFM) if ulfm else [],
        cwd=cwd,
    )
    if path.exists():
        text = allraise.load_report(path).text("ranks")
        ended = replace(ended, stdout=f"{ended.stdout}\n{path.name}:\n{text}")
    elif folder_of(path).exists():
        with suppress(ValueError):  # nobody has left anything
            text = load_spool(folder_of(path)).text("ranks")
            ended = replace(ended, stdout=f"{ended.stdout}\n{path.name}.d:\n{text}")
    return ended


def run_plain(fault: Fault, *, deadline_s: float, cwd: Path) -> mpirun.Run:
    """Run the same fault in a program without allraise, as mpi4py does it."""
    words = [word for word in fault.words if word not in TIMED]
    return mpirun.run(
        N_RANKS,
        ["-m", "mpi4py", str(PROGRAM), *words, "--plain"],
        deadline_s=deadline_s,
        cwd=cwd,
    )


def shortcomings(fault: Fault, ended: mpirun.Run) -> list[str]:
    """Return what is wrong with how a row ended; nothing if all is well."""
    found = []
    if ended.timed_out:
        found.append(f"no end within {fault.within_s:g} s")
    if ended.left_behind:
        found.append(f"left behind: {ended.left_behind} processes")
    held = not any(launcher().startswith(name) for name in fault.exempt)
    if held and not ended.timed_out and (ended.returncode != 0) != fault.fails:
        found.append(f"exit code {ended.returncode}")
    for entry in fault.shows:
        texts = (entry,) if isinstance(entry, str) else entry
        if not any(text in ended.output for text in texts):
            found.append(f"not shown: {' or '.join(map(repr, texts))}")
    found += [f"shown: {text!r}" for text in fault.hides if text in ended.output]
    return found
