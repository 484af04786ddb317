"""Seconds and memory of a fit of every kind, from cached answers; a process per kind and number of pictures.

ruac calibrate kind=temperature source=SRC@val backbone=nano images=40 cpu=true cache=runs/answers out=runs/first
python docs/results/logs/calibration_speed.py runs/answers/KEY 100 1000

KEY: the folder of the pictures fitted on. They are repeated until there are so many.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from ruac.calibration import KINDS, build_calibrator
from ruac.fitting.cache import CachedAnswers


class Repeated:
    """A sequence again and again; nothing of it is kept."""

    def __init__(self, answers: CachedAnswers, count: int):
        self.answers, self.count = answers, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if index >= self.count:
            raise IndexError(index)
        return self.answers[index % len(self.answers)]


def fit(kind: str, folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    calibrator = build_calibrator(kind)
    answers = CachedAnswers(folder, every_click=calibrator.every_click)
    wall, own = time.perf_counter(), time.process_time()
    calibrator.fit(Repeated(answers, count))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    times = f"{time.process_time() - own:7.1f} s of one core, {time.perf_counter() - wall:7.1f} s on the clock"
    print(f"{kind:12} {count:5} entries {times} {memory:6.0f} MB at most", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("counts", type=int, nargs="+")
    parser.add_argument("--kind", choices=KINDS, help="of this process")
    args = parser.parse_args()
    for kind in [args.kind] if args.kind else KINDS:
        for count in args.counts:
            if args.kind:
                fit(kind, args.folder, count)
            else:
                subprocess.run([sys.executable, __file__, str(args.folder), str(count), "--kind", kind], check=True)
