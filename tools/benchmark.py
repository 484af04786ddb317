"""Where time and memory go: tools/benchmark.py [metrics] [sweep] [memory] [boundary] [head] [--quick]

Prints a table of each (default: all), on the CPU with one thread. What they measure: docs/benchmarks.md.
"""

import argparse
import time

import torch

from ruac.base.errors import run_tool
from ruac.studies.benchmark import boundary, head, memory, metrics, sweep
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import markdown

OFFICIAL, SMALL = [Case(kind, 1024) for kind in ("tiny", "base_plus", "large")], Case("nano", 256)
TRAINING = {"train_side": 256, "batch_size": 2}

BENCHMARKS = {  # function, its sizes, and those of --quick
    "metrics": (metrics.run, {"cases": [*OFFICIAL, SMALL], "repeats": 2}, {"cases": [SMALL], "repeats": 2}),
    "sweep": (sweep.run, {"cases": [OFFICIAL[0], SMALL], "repeats": 3}, {"cases": [SMALL], "repeats": 2}),
    "memory": (memory.run, {"counts": [10**k for k in (2, 3, 4, 5)]}, {"counts": [100, 1000]}),
    "boundary": (
        boundary.run,
        {"side": 1024, "objects": 10, "repeats": 3},
        {"side": 512, "objects": 4, "repeats": 2},
    ),
    "head": (
        head.run,
        {"cases": [OFFICIAL[0], SMALL], "repeats": 3} | TRAINING,
        {"cases": [SMALL], "repeats": 2} | TRAINING,
    ),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(BENCHMARKS):
        parser.error(f"{min(unknown)!r}: expected some of {', '.join(BENCHMARKS)}")
    torch.set_num_threads(1)
    for name in args.names or BENCHMARKS:
        run, full, quick = BENCHMARKS[name]
        start = time.monotonic()
        rows = run(**(quick if args.quick else full))
        print(f"## {name}\n\n{markdown(rows)}\n\nTook {time.monotonic() - start:.0f} s.\n", flush=True)


if __name__ == "__main__":
    run_tool(main)
