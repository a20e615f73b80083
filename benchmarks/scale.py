"""100,000 simulated failures: merged, grouped and written, without MPI.

Prints one line of JSON: seconds, peak memory, size of the text.
"""

import json
import resource
import sys
import time

from allraise.bundle import Bundle
from allraise.capture import capture
from allraise.report import Report

N_RANKS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000


def fail():
    try:
        raise OSError(28, "No space left on device", "/scratch/shard-0")
    except OSError as error:
        return capture(error)


def of_rank(record, rank):
    link = record.links[0]
    name = f"shard-{rank}"
    link = link._replace(
        message=link.message.replace("shard-0", name),
        lines=tuple(line.replace("shard-0", name) for line in link.lines),
    )
    return record._replace(links=(link,))


def measure(kind):
    first = fail()
    began = time.perf_counter()
    bundles = (
        Bundle.of(rank, first if kind == "same" else of_rank(first, rank))
        for rank in range(N_RANKS)
    )
    merged = Bundle.merge(bundles, capped=True)
    wire = merged.encode()
    text = Report("write", Bundle.decode(wire), N_RANKS).text("groups")
    assert set(merged.ranks) == set(range(N_RANKS))
    return {
        f"{kind}_s": time.perf_counter() - began,
        f"{kind}_wire_bytes": len(wire),
        f"{kind}_text_bytes": len(text.encode()),
    }


result = {"ranks": N_RANKS, **measure("same"), **measure("vary")}
result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(result))
