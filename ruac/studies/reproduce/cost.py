"""What trainings cost, and how strong their attacks were, from the logs that each run keeps."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ruac.base.files import read_json
from ruac.inference.export import CONFIG
from ruac.studies.reproduce.plan import Run
from ruac.training.engine import LAST

ATTACK = "train/attack/"


def training_cost(run: Run) -> dict:
    """Steps, hours, processes and device of a finished run.

    Hours are from the first to the last logged event of each attempt, so steps that an interruption undid count,
    and loading does not.
    """
    exported = read_json(run.export / CONFIG)["record"]
    seconds = 0.0
    for log in _logs(run):
        times = [event.wall_time for tag in log.Tags()["scalars"] for event in log.Scalars(tag)]
        seconds += max(times) - min(times) if times else 0.0
    processes = torch.load(run.folder / LAST, map_location="cpu", weights_only=True, mmap=True)["processes"]
    return {
        "row": run.row,
        "run": run.name,
        "steps": exported["step"],
        "hours": seconds / 3600,
        "processes": processes,
        "device": exported.get("environment", {}).get("device", ""),
    }


def attack_strength(run: Run) -> pd.DataFrame:
    """What the attack changed at each logged step (see `Attacked`): columns row, run, measure, step, value."""
    found: dict[tuple[str, int], float] = {}
    for log in _logs(run):  # a later attempt logs the steps again that an earlier one lost
        for tag in log.Tags()["scalars"]:
            if tag.startswith(ATTACK):
                found |= {(tag.removeprefix(ATTACK), event.step): event.value for event in log.Scalars(tag)}
    lines = [(run.row, run.name, measure, step, value) for (measure, step), value in sorted(found.items())]
    return pd.DataFrame(lines, columns=["row", "run", "measure", "step", "value"])


def _logs(run: Run) -> Iterator[EventAccumulator]:
    """One per attempt, the earliest first."""
    for path in sorted((run.folder / "tensorboard").glob("events.*")):  # their names begin with the time
        log = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1})
        yield log.Reload()
