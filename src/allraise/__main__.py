"""The command line: ``python -m allraise run | show | doctor``.

Owns the arguments and exit codes. ``show`` starts no MPI and needs none.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from allraise.settings import STYLES, parse_timeout, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from allraise.ranks import RankSet
    from allraise.settings import Settings

USAGE_ERROR: Final = 2  # what argparse itself exits with

_PROGRAM: Final = "(script.py | -m module | -c code) [args]"


def _seconds(text: str) -> float:
    try:
        return parse_timeout(text, "the value")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _rank_set(text: str) -> RankSet:
    from allraise.ranks import RankSet

    try:
        return RankSet.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _report_path(text: str) -> str:
    from allraise.paths import check_path

    try:
        return check_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    import allraise

    parser = argparse.ArgumentParser(
        prog="allraise",
        description="One rank raises, every rank raises, and you read every traceback.",
        allow_abbrev=False,
    )
    version = f"allraise {allraise.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = _add_command(
        commands,
        "run",
        "run a program under mpirun, and report its failure once",
        "Runs a program unchanged. When an exception leaves it on any rank, one report\n"
        "is printed and written to a file, with the stacks of all ranks, and the job\n"
        "ends.",
        "mpirun -n 4 python -m allraise run --report report.json job.py --steps 1000",
    )
    run.usage = f"mpirun -n N python -m allraise run [options] {_PROGRAM}"
    run.add_argument(
        "--timeout",
        type=_seconds,
        metavar="S",
        help="seconds that a guard of the program may take (ALLRAISE_TIMEOUT)",
    )
    run.add_argument(
        "--grace",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="seconds to wait for more failures after the first (%(default)g)",
    )
    run.add_argument(
        "--report",
        type=_report_path,
        metavar="PATH",
        help="the report file; {jobid}, {step} and {time} are filled in, folders that "
        "are missing are made (ALLRAISE_REPORT; allraise-{jobid}.json)",
    )
    _add_style(run)
    show = _add_command(
        commands,
        "show",
        "show a report file, or the folder PATH.d; needs no MPI",
        "Shows the report file of a job, or what its ranks have left in the folder\n"
        "PATH.d beside it, where nobody was left to report. Needs no MPI.",
        "allraise show report.json --rank 0-2,4\n"
        "  allraise show report.json.d\n"
        "  allraise show report.json --html page.html",
    )
    show.add_argument(
        "path", metavar="PATH", help="a report file, or the folder PATH.d beside it"
    )
    _add_style(show)
    show.add_argument(
        "--rank", type=_rank_set, metavar="SET", help="only these, like 0-2,4"
    )
    show.add_argument("--html", metavar="OUT", help="write a web page, in one file")
    _add_command(
        commands,
        "doctor",
        "say, under mpirun, which protections a job has here",
        "Says what a job that is started in the same way has: its MPI and thread level,\n"
        "which protections are active, and how to get the others.",
        "mpirun -n 2 python -m allraise doctor",
    )
    return parser


def _add_command(
    commands: Any, name: str, summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add a command whose errors come with its own usage, whoever finds them."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.prog = f"allraise {name}"
    made.set_defaults(parser=made)
    return made


def _add_style(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--style",
        choices=STYLES,
        help="how a report is shown (ALLRAISE_STYLE; by the number of failed ranks)",
    )


def split_program(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Part what is for ``allraise run`` from the program and its arguments."""
    takes_value = {"--timeout", "--grace", "--report", "--style"}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            return list(arguments[:position]), tuple(arguments[position + 1 :])
        if word in ("-", "-m", "-c") or not word.startswith("-"):
            break
        position += 2 if word in takes_value else 1
    return list(arguments[:position]), tuple(arguments[position:])


def _checked_program(
    program: tuple[str, ...], error: Callable[[str], None]
) -> tuple[str, ...]:
    """Refuse what cannot be run, as `mpi4py.run` does."""
    if not program:
        error(f"no program to run: {_PROGRAM}")
    elif program[0] in ("-m", "-c") and len(program) == 1:
        error(f"option {program[0]} needs an argument")
    elif program[0] not in ("-", "-m", "-c") and not os.path.exists(program[0]):  # noqa: PTH110 the name of the script stays as it is
        error(f"there is no program {program[0]!r}")
    return program


def _run(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    program: tuple[str, ...],
    settings: Settings,
) -> None:
    from allraise.paths import DEFAULT_PATH

    program = _checked_program(program, parser.error)
    if options.timeout is not None:
        os.environ["ALLRAISE_TIMEOUT"] = str(options.timeout)  # for its guards
    path = options.report or settings.report or DEFAULT_PATH
    _start_mpi(parser)
    from allraise.beside import NoFolderError
    from allraise.launcher import Options, run

    if program[0] in ("-m", "-c") and not sys.flags.safe_path:
        # As `python -m` does it; the console script has its own folder there.
        sys.path[0] = str(Path.cwd()) if program[0] == "-m" else ""
    style = options.style or settings.style
    try:
        run(Options(program, options.grace, path, style))
    except NoFolderError as error:
        parser.error(str(error))


def _start_mpi(parser: argparse.ArgumentParser) -> None:
    """Start MPI, or say why not, in a line. Collective over ``COMM_WORLD``."""
    try:
        from mpi4py import MPI  # noqa: F401 may fail, and says why
    except (ImportError, RuntimeError) as error:
        parser.exit(1, f"{parser.prog}: MPI cannot be started: {error}\n")


def main() -> None:
    """Do what the command line says.

    Collective over ``COMM_WORLD`` for ``run`` and ``doctor``; ``show`` is not.
    """
    arguments = sys.argv[1:]
    program: tuple[str, ...] = ()
    parser = _parser()
    if arguments[:1] == ["run"]:
        head, program = split_program(arguments[1:])
        arguments = ["run", *head]
    options, unknown = parser.parse_known_args(arguments)
    parser = options.parser
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        settings = read_settings()
    except ValueError as error:
        parser.error(str(error))
    if options.command == "run":
        _run(parser, options, program, settings)
    elif options.command == "show":
        from allraise.showing import show

        sys.exit(show(options, settings.style))
    else:
        from allraise.doctor import doctor

        _start_mpi(parser)
        doctor()


if __name__ == "__main__":
    main()
