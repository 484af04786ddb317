"""Every config that comes with a model, from a stranger who would like to know the environment."""

import json

import numpy as np
import pytest
from builders import export_with_backbone_beside, save_backbone, with_head
from safetensors.torch import save_file

from ruac.backbone import load_backbone
from ruac.base.config import save_config
from ruac.base.errors import RuacError
from ruac.calibration import load_calibrator
from ruac.calibration.registry import build_calibrator
from ruac.conformal.bounds import BoundsConfig, fit_bounds, load_bounds
from ruac.conformal.mask_losses import INNER, OUTER
from ruac.inference.export import load_exported
from ruac.inference.reliability import load_reliability
from ruac.training.adversarial import TrainConfig
from ruac.training.engine import LAST
from ruac.training.export_run import export_run
from ruac.training.trained_attacker import load_attacker
from ruac.uncertainty import BayesianConfig

SECRET = "${oc.env:RUAC_SECRET}"  # a number, so that it would fit anywhere


def edited(path, *keys):
    """The JSON of `path` with `SECRET` at a place."""
    content = holder = json.loads(path.read_text())
    for key in keys[:-1]:
        holder = holder[key]
    holder[keys[-1]] = SECRET
    path.write_text(json.dumps(content))


def export(folder, nano, *keys):
    made = export_with_backbone_beside(
        with_head(nano, BayesianConfig()), save_backbone(nano, folder), folder / "export"
    )
    edited(made / "config.json", *keys)
    return load_exported(made)


def calibrator(folder, nano, part, key):
    kind = build_calibrator("clustered")
    header = {"kind": kind.kind, "config": json.dumps(vars(kind.config)), "origin": json.dumps(vars(kind.origin))}
    header[part] = json.dumps(json.loads(header[part]) | {key: SECRET})
    save_file(kind.state_dict(), folder / "calibrator.safetensors", metadata=header)
    return load_calibrator(folder / "calibrator.safetensors")


def bounds(folder, nano):
    losses = [np.sort(np.random.default_rng(0).random((40, len(grid))))[:, ::-1] for grid in (OUTER, INNER)]
    path = fit_bounds(*losses, BoundsConfig(), identity={}, record={}).save(folder / "bounds.json", alpha=0.3)
    edited(path, "config", "tolerance")
    return load_bounds(path)


def reliability(folder, nano):
    reader = {"weights": {"predicted_iou": SECRET}, "bias": 0.1, "threshold": [0.2], "risk": [0.3]}
    path = folder / "reliability.json"
    path.write_text(json.dumps({"format": 1, "readers": {"": reader}, "identity": {}, "record": {}}))
    return load_reliability(path, {})


def backbone(folder, nano):
    (folder / "mine.yaml").write_text(f"checkpoint: {SECRET}\n")
    return load_backbone(str(folder / "mine.yaml"))


def run(folder, nano, read):
    save_config(TrainConfig(source=SECRET), folder / "config.yaml")
    (folder / LAST).write_bytes(b"")
    return read(folder)


CASES = {
    "the backbone of an export": lambda *a: export(*a, "backbone", "checkpoint"),
    "the head of an export": lambda *a: export(*a, "head", "hidden"),
    "the settings of a calibrator": lambda *a: calibrator(*a, "config", "clusters"),
    "the origin of a calibrator": lambda *a: calibrator(*a, "origin", "image_size"),
    "bounds": bounds,
    "a reliability": reliability,
    "a backbone": backbone,
    "a run that is exported": lambda *a: run(*a, lambda path: export_run(path, path / "out", with_backbone=True)),
    "a run whose attacker looks": lambda *a: run(*a, lambda path: load_attacker(path, "nano")),
}


@pytest.mark.parametrize("case", CASES)
def test_no_environment_is_read(tmp_path, nano, monkeypatch, case):
    monkeypatch.setenv("RUAC_SECRET", "7")
    with pytest.raises(
        RuacError, match=r"key '[\w.]+': '\$\{oc\.env:RUAC_SECRET\}', expected a value as it is"
    ) as info:
        CASES[case](tmp_path, nano)
    assert str(tmp_path) in str(info.value)
