"""Run one rank of a job with its output and exit code in files of its own.

    mpiexec -n 4 python apart.py FOLDER program.py arguments

leaves FOLDER/0.out, 0.err, 0.code and so on. The launcher mixes the ranks'
output, and ends the others once a rank has failed: so each rank waits here,
outside MPI, until all have ended by themselves.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MPI_RANKID")
SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")
WAIT_S = 30.0


def first(names):
    return next(os.environ[name] for name in names if name in os.environ)


folder, rank, size = Path(sys.argv[1]), first(RANK_VARIABLES), first(SIZE_VARIABLES)
with (
    (folder / f"{rank}.out").open("wb") as out,
    (folder / f"{rank}.err").open("wb") as err,
):
    # MPICH reaches its launcher through a file that it inherits.
    command = [sys.executable, *sys.argv[2:]]
    code = subprocess.call(command, stdout=out, stderr=err, close_fds=False)
part = folder / f"{rank}.part"
part.write_text(f"{code}")
part.rename(folder / f"{rank}.code")
deadline = time.monotonic() + WAIT_S
while len(list(folder.glob("*.code"))) < int(size) and time.monotonic() < deadline:
    time.sleep(0.01)
sys.exit(code)
