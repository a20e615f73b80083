"""Measure, and print the tables of docs/performance.md.

    python benchmarks/run.py                       on the MPI beside this Python
    python benchmarks/run.py --json FILE           and keep the figures
    python benchmarks/run.py --write PAGE FILE...  write the page from kept figures

All figures that matter are ratios to a yardstick measured in the same run: on a
machine with fewer cores than ranks, a microsecond is the scheduler's.
"""

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

import mpirun  # noqa: E402 found beside us, not installed
from allraise.plain import IS_COMPILED  # noqa: E402

DEADLINE_S = 300
RANKS = (2, 4, 8, 16, 32, 64)


def under_mpiexec(program, n_ranks, *arguments):
    """Run a benchmark and return its line of JSON."""
    words = [str(HERE / program), *map(str, arguments)]
    ended = mpirun.run(n_ranks, words, deadline_s=DEADLINE_S)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not lines:
        sys.exit(f"{program} with {n_ranks} ranks failed:\n{ended.output}")
    return json.loads(lines[-1])


def import_ms():
    """Return how long ``import allraise`` takes in a new process: median of nine."""
    code = (
        "import time; t = time.perf_counter(); import allraise; "
        "print((time.perf_counter() - t) * 1e3); "
        "import sys; assert 'mpi4py.MPI' not in sys.modules"
    )
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], text=True))
        for _ in range(9)
    ]
    return statistics.median(times)


def torch_ratio():
    """Compare a collective step with torch's over gloo, where torch is there."""
    try:
        import torch
    except ImportError:
        return None
    return under_mpiexec("against_torch.py", 4) | {"torch": torch.__version__}


def measure(ranks):
    figures = {
        "machine": machine(),
        "load": os.getloadavg()[0],
        "import_ms": import_ms(),
        "scale": json.loads(
            subprocess.check_output([sys.executable, str(HERE / "scale.py")], text=True)
        ),
        "success": [],
        "failure": [],
        "gcomm": [],
        "torch": torch_ratio(),
    }
    for n_ranks in ranks:
        # Fewer rounds where each is dearer: a minute a row at most.
        loops = max(20, 20_000 // n_ranks**2)
        row = under_mpiexec("success.py", n_ranks, 15, loops)
        figures["success"].append(row)
        print(f"success {row}", flush=True)
        row = under_mpiexec("failure.py", n_ranks, max(5, 60 // n_ranks))
        figures["failure"].append(row)
        print(f"failure {row}", flush=True)
    for n_ranks in [n for n in ranks if n in (2, 8)]:
        row = under_mpiexec("gcomm.py", n_ranks, 10, 20_000 // n_ranks**2)
        figures["gcomm"].append(row)
        print(f"g.comm {row}", flush=True)
    figures["mpi"] = figures["success"][0]["mpi"]
    return figures


def machine():
    text = Path("/proc/cpuinfo").read_text()
    names = re.findall(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    name = names[0] if names else platform.machine()
    made = "compiled" if IS_COMPILED else "not compiled"
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores, {name}, {python}, allraise {made}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---:|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def show(figures):
    """Return the figures of one MPI as Markdown."""
    success = table(
        (
            "ranks",
            "Allreduce us",
            "least",
            "guard us",
            "added us",
            "ratio",
            "median",
            "used again us",
            "ratio",
            "together: Allreduce us",
            "ratio",
        ),
        [
            (
                r["ranks"],
                f"{r['bare_us']:.2f}",
                f"{r['block_us'] / r['bare_us']:.2f}",
                f"{r['guard_us']:.2f}",
                f"{r['guard_us'] - r['bare_us']:+.2f}",
                f"{r['guard_us'] / r['bare_us']:.2f}",
                f"{r['median_ratio']:.2f}",
                f"{r['reused_us']:.2f}",
                f"{r['reused_us'] / r['bare_us']:.2f}",
                f"{r['met_bare_us']:.2f}",
                f"{r['met_ratio']:.2f}",
            )
            for r in figures["success"]
        ],
    )
    failure = table(
        (
            "ranks",
            "naive ms",
            "least",
            "same ms",
            "ratio",
            "vary ms",
            "ratio",
            "root gets",
        ),
        [
            (
                r["ranks"],
                f"{r['same_naive_ms']:.1f}",
                f"{r['least_ratio']:.2f}",
                f"{r['same_ours_ms']:.1f}",
                f"{r['same_ratio']:.2f}",
                f"{r['vary_ours_ms']:.1f}",
                f"{r['vary_ratio']:.2f}",
                f"{r['vary_bytes'] / 1e3:.1f} kB in {r['vary_messages']}",
            )
            for r in figures["failure"]
        ],
    )
    parts = [f"## {name_of(figures)}", figures["machine"], success, failure]
    for r in figures["gcomm"]:
        prices = table(
            ("operation", "plain us", "g.comm us", "added us"),
            [
                (
                    name,
                    f"{p['plain']:.2f}",
                    f"{p['g.comm']:.2f}",
                    f"{p['g.comm'] - p['plain']:+.2f}",
                )
                for name, p in r["prices"].items()
            ],
        )
        wake = (
            f"From a failure to the last of {r['ranks']} ranks woken in a barrier: "
            f"median {r['wake_median_ms']:.2f} ms, most {r['wake_max_ms']:.2f} ms."
        )
        parts += [f"`g.comm`, {r['ranks']} ranks:", prices, wake]
    if figures["torch"]:
        t = figures["torch"]
        parts.append(
            f"`all_gather` of {t['ranks']} ranks, torch {t['torch']} over gloo against "
            f"`CollectiveSteps`: {t['success_ratio']:.0f} times as long where all goes "
            f"well, {t['failure_ratio']:.0f} times where all ranks fail."
        )
    scale = figures["scale"]
    parts.append(
        f"{scale['ranks']:,} simulated failures merged, grouped and written in "
        f"{scale['same_s']:.1f} s where all are alike, {scale['vary_s']:.1f} s where "
        f"the messages differ; {scale['peak_mb']:.0f} MB at most, the text is "
        f"{scale['vary_text_bytes']} bytes. `import allraise`: "
        f"{figures['import_ms']:.0f} ms."
    )
    return "\n\n".join(parts)


PAGE = """# Performance

{cost}

Written by `benchmarks/run.py --write`; `make bench` measures on the machine at hand. Every
figure stands beside a yardstick from the same run. The line below each MPI tells the machine,
and whether the compiled part of allraise was in use.

The compiled part calls MPI's own functions, without mpi4py in between, which looks at each
argument of each call. So a guard can take less than the bare `Allreduce` in Python beside it.

The aims are 2 microseconds from entry to exit at two ranks, 15 % from eight ranks on, half
of the naive form's time at 64 ranks, 2.5 microseconds for an operation on `g.comm`, and 60 ms
for the import. Where a figure below is higher, the aim is not met on that machine.

With more ranks than cores, the ranks of a core take turns: the time that each spends in the
interpreter adds up, on caches that another has used, and a report waits until each rank has
had its turn.

## How to read the tables

**Success**: a guard in which nobody fails, in a loop of nothing else, the fastest of 15 blocks.

| column | holds |
|---|---|
| Allreduce | the bare `Allreduce` of the same bytes: the yardstick |
| least | how many times as long the least possible block in Python takes: one that counts, writes the count, reduces and compares |
| guard | `with guard(comm, "step")`, and *added* and *ratio* against the yardstick |
| median | of the ratios of neighbouring blocks: the machine's speed changes, and the fastest block of one may have met a better moment |
| used again | a guard that was made before, entry to exit |
| together | `Allreduce` and the first guard, with the ranks brought together before each call, median |

**Failure**: every rank fails, 13 frames deep. The time is the root's, until the text is there.

| column | holds |
|---|---|
| naive | what PyTorch does: pickle pairs of exception and summary, `comm.gather`, write them one by one; the yardstick |
| least | an `Allreduce` and a `gather` with nothing to carry, as a part of the naive time: what any form takes that agrees first |
| same, vary | allraise, with one message on all ranks, or messages that name the rank; the ratio is the median of those of two runs, one after the other |
| root gets | what comes in over the wire, and in how many messages |

**g.comm**: an operation that a peer's failure can interrupt, against the plain one.

"""


def cost(kept):
    """Return what a guard costs, in a sentence."""
    told = []
    for figures in kept:
        row = figures["success"][0]
        added = f"{row['guard_us'] - row['bare_us']:+.2f} us"
        told.append(f"{added} with {row['ranks']} ranks on {name_of(figures)}")
    return (
        "A guard in which nobody fails takes one `Allreduce` of 64 bytes. Against mpi4py's:\n"
        f"{', '.join(told)}."
    )


def name_of(figures):
    """Return the name and the version of an MPI, in a few words."""
    return " ".join(figures["mpi"].split(",")[0].replace("Version:", "").split())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default=",".join(map(str, RANKS)))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--write", metavar="PAGE")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    if options.write:
        kept = [json.loads(Path(name).read_text()) for name in options.files]
        page = PAGE.format(cost=cost(kept))
        text = page + "\n\n".join(show(figures) for figures in kept) + "\n"
        Path(options.write).write_text(text)
        return
    figures = measure([int(n) for n in options.ranks.split(",")])
    if options.json:
        Path(options.json).write_text(json.dumps(figures))
    print(show(figures))


if __name__ == "__main__":
    main()
