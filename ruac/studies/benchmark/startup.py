"""What it costs to begin: importing the package, and every help of the command line, in processes of their own."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence

from ruac.studies.benchmark.rows import Row

MOST, HELP_SECONDS = 1.3, 1.0


def run(*, verbs: Iterable[str], repeats: int) -> list[Row]:
    """Ratio: CPU seconds to those of ``import torch``; of a help, its seconds to the one second that is its target."""
    commands = {
        "import torch": ["-c", "import torch"],
        "import ruac": ["-c", "import ruac"],
        "import ruac.Predictor": ["-c", "from ruac import Predictor"],
        **{f"ruac {verb} --help": ["-m", "ruac.cli", verb, "--help"] for verb in verbs},
    }
    seconds = dict.fromkeys(commands, float("inf"))
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name] = min(seconds[name], cpu_seconds([sys.executable, *command]))
    torch, helps = seconds["import torch"], [name for name in commands if name.endswith("--help")]
    slowest = max(helps, key=seconds.__getitem__)
    rows = [Row("startup: import torch", torch, 1.0)]
    rows.append(Row("startup: import ruac", seconds["import ruac"], seconds["import ruac"] / torch, f"<= {MOST}"))
    predictor = seconds["import ruac.Predictor"]
    rows.append(Row("startup: from ruac import Predictor", predictor, predictor / torch))
    note = f"slowest of {len(helps)}: {slowest}"
    ratio = seconds[slowest] / HELP_SECONDS
    return [*rows, Row("startup: help", seconds[slowest], ratio, "<= 1.0", note)]


def cpu_seconds(command: Sequence[str]) -> float:
    """User and system time of a process and of what it starts. Raises `CalledProcessError` if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
