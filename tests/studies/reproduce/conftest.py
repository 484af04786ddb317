"""What tests of the queue share: a small plan, and stand-ins for the entry scripts that leave the same files."""

import json
from pathlib import Path

import pytest
import yaml

from ruac.base.config import load_config, save_config
from ruac.studies.reproduce.plan import PlanConfig, RowConfig, SweepPlan
from ruac.training.adversarial import TrainConfig


@pytest.fixture
def plan(tmp_path):
    """Vanilla and two trained rows, one of them with two seeds, in two sweeps."""
    return PlanConfig(
        source="somewhere",
        validation_split="val",
        domains=["domains"],
        out=str(tmp_path / "out"),
        cpu=True,
        rows=[
            RowConfig("vanilla"),
            RowConfig("bayes", train="configs/train/bayes.yaml", overrides=["engine.steps=7"]),
            RowConfig("ruac", train="configs/train/ruac.yaml", seeds=[0, 1]),
        ],
        sweeps=[SweepPlan("own"), SweepPlan("replay", rows=["ruac"], replay="own")],
        compare_with=["vanilla"],
    )


class Scripts:
    """Stands for train, export and sweep. calls: (script, positional arguments, overrides) of each start.

    broken: folders whose training fails. killed: folders in whose sweep everything stops, as at a kill. unreadable:
    entries of images in the manifest of every sweep.
    """

    def __init__(self):
        self.calls, self.broken, self.killed, self.unreadable = [], set(), set(), []

    def __call__(self, command, log):
        (place,) = (n for n, part in enumerate(command) if part.endswith(".py"))
        script, arguments = Path(command[place]).stem, command[place + 1 :]
        given = dict(part.split("=", 1) for part in arguments if "=" in part)
        self.calls.append((script, [part for part in arguments if "=" not in part], given))
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a") as stream:
            stream.write(f"{script} starts\n")
        return getattr(self, script)(arguments, given, log)

    def names(self, script):
        """What was started, by the folder it was to fill."""
        at = {"train": lambda given, places: given["out"], "sweep": lambda given, places: given["out"]}
        find = at.get(script, lambda given, places: places[0])
        return [Path(yaml.safe_load(find(given, places))).name for s, places, given in self.calls if s == script]

    def train(self, arguments, given, log):
        folder = Path(json.loads(given["out"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.pt").write_text("")
        overrides = [part for part in arguments[1:] if "=" in part]
        save_config(load_config(TrainConfig, arguments[0], overrides), folder / "config.yaml")
        if folder.name in self.broken:
            with open(log, "a") as stream:
                stream.write("error: the loss is not finite\nsome launcher's words\n")
            return 2
        return 0

    def export(self, arguments, given, log):
        export = Path(arguments[1])
        export.mkdir()
        (export / "model.safetensors").write_text(arguments[1])
        (export / "config.json").write_text('{"record": {"step": 8, "environment": {"device": "abacus"}}}')
        return 0

    def fit_local_temperature(self, arguments, given, log):
        folder = Path(json.loads(given["out"]))
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(folder.name)
        (folder / "config.json").write_text('{"record": {}}')
        return 0

    fit_temperature = fit_local_temperature

    def sweep(self, arguments, given, log):
        folder = Path(json.loads(given["out"]))
        if str(folder) in self.killed:
            raise KeyboardInterrupt
        manifest = {"models": json.loads(given["models"]), "failed": self.unreadable}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return int(bool(self.unreadable))


@pytest.fixture
def scripts():
    return Scripts()
