"""Where time and memory go.

Prints a table of each (default: all), on the CPU with one thread. Only when asked for by name: `onnx`, with the extra
of that name, and `gpu`, on a CUDA device.
What they measure: docs/benchmarks.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ruac.cli import VERBS
from ruac.cli.parser import verb_parser

EXAMPLE = "ruac benchmark metrics sweep --quick"
NAMES = (
    "metrics",
    "sweep",
    "memory",
    "boundary",
    "head",
    "step",
    "looks",
    "growth",
    "processes",
    "merge",
    "startup",
    "demo",
    "automatic",
)
ON_REQUEST = ("onnx", "gpu")  # not among all: need what not every machine has


def benchmarks() -> dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """By name: the function, its sizes, and those of --quick."""
    from ruac.studies.benchmark import (
        automatic,
        boundary,
        demo,
        gpu,
        growth,
        head,
        looks,
        memory,
        merge,
        metrics,
        onnx,
        processes,
        startup,
        step,
        sweep,
    )
    from ruac.studies.benchmark.cases import Case

    official, small = [Case(kind, 1024) for kind in ("tiny", "base_plus", "large")], Case("nano", 256)
    training = {"train_side": 256, "batch_size": 2}
    return {
        "metrics": (metrics.run, {"cases": [*official, small], "repeats": 2}, {"cases": [small], "repeats": 2}),
        "sweep": (sweep.run, {"cases": [official[0], small], "repeats": 3}, {"cases": [small], "repeats": 2}),
        "memory": (memory.run, {"counts": [10**k for k in (2, 3, 4, 5)]}, {"counts": [100, 1000]}),
        "boundary": (
            boundary.run,
            {"side": 1024, "objects": 10, "repeats": 3},
            {"side": 512, "objects": 4, "repeats": 2},
        ),
        "head": (
            head.run,
            {"cases": [Case(k, side, n) for k, side in (("tiny", 1024), ("nano", 256)) for n in (1, 10)], "repeats": 5}
            | training,
            {"cases": [*(Case("nano", 256, n) for n in (1, 10)), Case("tiny", 1024, 1)], "repeats": 2} | training,
        ),
        "step": (
            step.run,
            {"side": 256, "batch_size": 2, "repeats": 5},
            {"side": 256, "batch_size": 2, "repeats": 2},
        ),
        "looks": (looks.run, {"side": 256, "objects": 10, "repeats": 5}, {"side": 256, "objects": 10, "repeats": 2}),
        "growth": (
            growth.run,
            {"sides": (256, 512, 768, 1024), "objects": (1, 4, 16, 64), "batches": (1, 2, 4, 8), "repeats": 3},
            {"sides": (128, 256), "objects": (1, 4), "batches": (1, 2), "repeats": 2},
        ),
        "processes": (
            processes.run,
            {"cases": [small], "pictures": 10, "repeats": 3},
            {"cases": [small], "pictures": 2, "repeats": 1},
        ),
        "merge": (merge.run, {"models": 50, "repeats": 2}, {"models": 5, "repeats": 1}),
        "startup": (startup.run, {"verbs": VERBS, "repeats": 3}, {"verbs": VERBS, "repeats": 1}),
        "demo": (demo.run, {"repeats": 5}, {"repeats": 2}),
        "automatic": (
            automatic.run,
            {"sides": (256, 1024), "points_per_side": 8, "repeats": 2},
            {"sides": (256,), "points_per_side": 2, "repeats": 1},
        ),
        "onnx": (
            onnx.run,
            {"counts": (1, 10), "scenes": 40, "repeats": 5},
            {"counts": (1,), "scenes": 4, "repeats": 2},
        ),
        "gpu": (
            gpu.run,
            {"kind": "base_plus", "side": 1024, "batch_sizes": (1, 4, 8), "objects": 10, "repeats": 10},
            {"kind": "tiny", "side": 512, "batch_sizes": (1, 4), "objects": 4, "repeats": 3},
        ),
    }


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("names", nargs="*", metavar="benchmark", help=", ".join((*NAMES, *ON_REQUEST)))
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows, and what they were measured on")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="two such files: what changed")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - {*NAMES, *ON_REQUEST}:
        parser.error(f"{min(unknown)!r}: expected some of {', '.join((*NAMES, *ON_REQUEST))}")

    if args.compare:
        from ruac.studies.benchmark.record import compare

        return print(compare(*args.compare))

    import torch

    from ruac.studies.benchmark.record import save_rows
    from ruac.studies.benchmark.rows import markdown

    torch.set_num_threads(1)
    known, done = benchmarks(), {}
    for name in args.names or NAMES:
        run, full, quick = known[name]
        start = time.monotonic()
        rows = done[name] = run(**(quick if args.quick else full))
        print(f"## {name}\n\n{markdown(rows)}\n\nTook {time.monotonic() - start:.0f} s.\n", flush=True)
        if args.json:  # after each, so that a run that is stopped has kept what it measured
            save_rows(args.json, done)
