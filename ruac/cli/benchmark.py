"""Where time and memory go.

Prints a table of each (default: all), on the CPU with one thread. Only when asked for by name: `onnx`, with the extra
of that name, and `gpu`, on a CUDA device.
What they measure: docs/benchmarks.md.
"""

from __future__ import annotations

import time
from typing import Any

from ruac.cli import VERBS
from ruac.cli.parser import verb_parser

EXAMPLE = "ruac benchmark metrics sweep --quick"
NAMES = ("metrics", "sweep", "memory", "boundary", "head", "startup", "demo", "automatic")
ON_REQUEST = ("onnx", "gpu")  # not among all: need what not every machine has


def benchmarks() -> dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """By name: the function, its sizes, and those of --quick."""
    from ruac.studies.benchmark import automatic, boundary, demo, gpu, head, memory, metrics, onnx, startup, sweep
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
            {"cases": [official[0], small], "repeats": 3} | training,
            {"cases": [small], "repeats": 2} | training,
        ),
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
    args = parser.parse_args(argv)
    if unknown := set(args.names) - {*NAMES, *ON_REQUEST}:
        parser.error(f"{min(unknown)!r}: expected some of {', '.join((*NAMES, *ON_REQUEST))}")

    import torch

    from ruac.studies.benchmark.rows import markdown

    torch.set_num_threads(1)
    known = benchmarks()
    for name in args.names or NAMES:
        run, full, quick = known[name]
        start = time.monotonic()
        rows = run(**(quick if args.quick else full))
        print(f"## {name}\n\n{markdown(rows)}\n\nTook {time.monotonic() - start:.0f} s.\n", flush=True)
