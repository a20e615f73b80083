"""``allraise run``: a whole program whose failure is told once.

Owns how a program is run and how its process ends. The program itself is run by
`mpi4py.run`, as ``python -m mpi4py`` does it.

MPI is started before the program, because the helper threads (see `witness`)
need a communicator that all ranks have, whatever goes wrong afterwards, for
instance an import that fails on one rank. So ``mpi4py.rc`` is set by its
environment variables (``MPI4PY_RC_THREAD_LEVEL``), not by the program.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from allraise.beside import make_carrier, make_spool
from allraise.bundle import Bundle
from allraise.chains import is_a
from allraise.collector import Outcome
from allraise.ending import abort_job, end_process, report_to
from allraise.exits import exit_now, watch_exits
from allraise.findings import failures_in
from allraise.neighbours import end_with_launcher
from allraise.paths import DEFAULT_PATH, expand_path, job_id
from allraise.publishing import default_style, save_somewhere, write_error_stream
from allraise.record import ALL_KNOWN, Link, Record
from allraise.registry import resolve_comm
from allraise.report import Report
from allraise.signals import NEVER_RAISE
from allraise.ulfm import is_active
from allraise.uncaught import (
    call_hook,
    captured,
    exit_code,
    findings_of,
    passed_on,
    shell_code,
)
from allraise.viewer import sanitise
from allraise.witness import MAX_EXTRAS, Witness

# The other ranks are ended by the launcher; this one must not outlive it.
KILLED_WITHIN_S: Final = 10.0


_AFTER_THE_END: Final = "failed after the end"  # of MPI: of others nothing is known


@dataclass(frozen=True, slots=True)
class Options:
    """What ``allraise run`` was asked for."""

    program: tuple[str, ...]
    grace_s: float = 2.0
    report: str = DEFAULT_PATH
    style: str | None = None


class _Job:
    """One process of a job that is run."""

    def __init__(self, options: Options) -> None:
        comm = resolve_comm(None)
        from mpi4py import MPI

        self.options = options
        self.comm = comm
        self.pid = os.getpid()
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self.threads_may_call = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        # Whether ranks may die, and an abort ends one of them; asked here, since
        # helper threads may not.
        self.tolerant = self.size > 1 and is_active()
        self.end = _record("finished", "finished")
        self.spool = make_spool(comm, options.report)
        report_to(options.report, options.style)  # of guards that end the job
        self._masks = threading.local()  # the signal mask, of a thread that forks
        self.witness = Witness(
            make_carrier(comm, options.report, threads_may_call=self.threads_may_call),
            options.grace_s,
            self.publish,
            self.end_job,
            (lambda code: end_process(shell_code(code))) if self.tolerant else None,
        )

    # -- the outcome -------------------------------------------------------------

    def publish(self, outcome: Outcome) -> None:
        """Show and store what was found; runs in the helper thread."""
        # Who was killed while it waited for its peers had said here what failed.
        kinds = [(record.kind, ranks) for ranks, record in outcome.bundle.records()]
        unexplained = [
            rank
            for kind, ranks in kinds
            if kind in ("silent", "signalled", "blocked", "running")
            for rank in ranks
        ]
        silent = [rank for kind, ranks in kinds if kind == "silent" for rank in ranks]
        # Where the job got SIGTERM, so did they.
        ask = not any(kind == "signalled" for kind, _ in kinds)
        stacks = self.spool.stacks_of(silent, ask=ask)
        left = self.spool.known_of(unexplained)
        bundle = Bundle.merge((left, stacks, outcome.bundle))
        report = Report.here(outcome.step, bundle, self.size)
        report.environment["exit_code"] = shell_code(outcome.code)
        report.environment["ended_because"] = outcome.why
        if outcome.why != _AFTER_THE_END:
            report.environment[ALL_KNOWN] = True
        path = expand_path(self.options.report, outcome.step, job_id(os.environ))
        where = save_somewhere(report, path)
        if where.startswith("report: "):
            self.spool.remove()
        n_failed = len(report.failed_ranks)
        style = self.options.style or default_style(n_failed)
        try:
            text = report.text(style)
        except Exception as error:
            text = f"the report cannot be shown: {type(error).__name__}: {error}\n"
        what = f"{n_failed} of {self.size} ranks failed" if n_failed else outcome.why
        if outcome.step:
            what += f" in step {sanitise(outcome.step)!r}"
        head = f"allraise: {what}, exit code {shell_code(outcome.code)}"
        write_error_stream(f"\n{head}\n\n{text}\n{where}\n")

    def end_job(self, code: int) -> None:
        """End the job, from the helper thread, where that may be done."""
        if self.size == 1:
            return
        if self.threads_may_call or self.tolerant:
            self.witness.clean_up()
            abort_job(shell_code(code))
        # A failed rank's main thread does it. If there is none, or it is stuck:
        time.sleep(KILLED_WITHIN_S / 2)
        self.witness.clean_up()
        exit_now(shell_code(code))

    def fail(self, exc: BaseException) -> NoReturn:
        """Report the exception that the program ended with, and end the job."""
        hook = sys.excepthook
        has_hook = hook is not sys.__excepthook__ and not is_a(exc, SystemExit)
        code = exit_code(exc)
        witness = self.witness
        if witness.is_alive():
            step, findings = findings_of(exc, self.rank, witness.own_bundle)
            self.spool.keep(step, failures_in(findings))
            found = [finding.encode() for finding in findings]
            witness.fail(("failed", code, found, step, has_hook))
        else:  # MPI has been finalized: each for itself
            bundle = witness.own_bundle(captured(exc))
            passed = passed_on(exc)
            step = passed.step if passed is not None else ""
            self.publish(Outcome(code, _AFTER_THE_END, step, bundle))
        if has_hook:
            call_hook(hook, exc)
        witness.post("tell", ("hooked",))
        if self.size > 1 and witness.is_alive():
            if not self.threads_may_call and witness.may_abort.wait(KILLED_WITHIN_S):
                witness.clean_up()
                abort_job(shell_code(witness.code))
            time.sleep(KILLED_WITHIN_S)
            exit_now(shell_code(witness.code))
        sys.exit(shell_code(witness.code or code))

    # -- the end of the process --------------------------------------------------

    def leave(self, *_args: object) -> None:
        """Say that this rank has reached the end; at exit, or at ``MPI_Finalize``."""
        if os.getpid() != self.pid:
            return
        self.spool.clear()
        if not self.threads_may_call:
            return
        began = time.monotonic()

        def wait() -> bool:
            # With fault tolerance, ranks may be dead and the job alive.
            if time.monotonic() - began < 1:
                return True
            return not self.tolerant

        self.witness.leave(self.end, wait=wait)

    def install(self) -> None:
        """Begin to listen: threads, exits, signals."""
        from mpi4py import MPI

        watch_exits(self.rank)
        if self.tolerant:
            end_with_launcher()
        self.witness.start()
        # First in, last out: after the program's own exit functions.
        atexit.register(self.leave)
        keyval = MPI.Comm.Create_keyval(delete_fn=self.leave)
        # MPI_Finalize deletes this attribute before it does anything else.
        MPI.COMM_SELF.Set_attr(keyval, self)
        self._install_hooks()
        is_ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if is_ours:
            handler = self.witness.alarm.on_sigterm
            NEVER_RAISE[id(handler)] = handler
            signal.signal(signal.SIGTERM, handler)
        self.spool.watch_crashes(sigterm=is_ours)
        signal.set_wakeup_fd(self.witness.wakeup_fd, warn_on_full_buffer=False)
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._forget,
        )

    def _before_fork(self) -> None:
        """Hold signals back: a new child would write them to this rank's pipe."""
        watched = {signal.SIGTERM, signal.SIGINT}
        self._masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.before)

    def _forget(self) -> None:
        """Be as if there were no allraise, in a forked child."""
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
            if signal.getsignal(signal.SIGTERM) == self.witness.alarm.on_sigterm:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._after_fork()

    def _install_hooks(self) -> None:
        thread_hook, unraisable_hook = threading.excepthook, sys.unraisablehook

        def on_thread(args: Any) -> None:
            if args.exc_value is not None and args.exc_type is not SystemExit:
                self._keep(args.exc_value, "thread")
            thread_hook(args)

        def on_unraisable(args: Any) -> None:
            if args.exc_value is not None and "atexit" in str(args.err_msg):
                self._keep(args.exc_value, "atexit")
            unraisable_hook(args)

        threading.excepthook = on_thread
        sys.unraisablehook = on_unraisable

    def _keep(self, exc: BaseException, kind: str) -> None:
        if len(self.witness.extras) < MAX_EXTRAS and os.getpid() == self.pid:
            self.witness.extras.append(captured(exc, kind))


def _record(kind: str, type_name: str) -> Record:
    return Record((Link(type_name, "", (f"{type_name}\n",)),), kind=kind)


def run(options: Options) -> None:
    """Run a program, and report its failure once.

    Collective over ``COMM_WORLD`` at the start, where a communicator is
    duplicated; not collective afterwards.

    Raises:
        NoFolderError: There is no folder for what the ranks leave; on every rank,
            before the program runs.
        SystemExit: As the program has raised it, where that is no failure; on a
            job of one rank also with the code of the failure.
    """
    from mpi4py.run import run_command_line

    job = _Job(options)
    job.install()
    try:
        run_command_line(list(options.program))
    except BaseException as exc:
        if os.getpid() != job.pid:  # a forked child
            raise
        if is_a(exc, SystemExit) and not exit_code(exc):
            job.end = captured(exc, "finished")
            raise
        job.fail(exc)
