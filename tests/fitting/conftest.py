"""A calibration of the embedded nano, at 96 pixels, on the tiny data set; random weights are worse than chance."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ruac.evaluation.protocol import ProtocolConfig
from ruac.fitting.calibrate import CalibrateConfig
from ruac.fitting.draw import PixelConfig


@pytest.fixture
def backbone(tmp_path) -> str:
    """A YAML of the embedded nano at 96 pixels."""
    checkpoint = Path(__file__).parents[2] / "checkpoints" / "nano.safetensors"
    path = tmp_path / "backbone.yaml"
    path.write_text(yaml.safe_dump({"kind": "nano", "checkpoint": str(checkpoint), "image_size": 96}))
    return str(path)


@pytest.fixture
def config(backbone, coco_folder, tmp_path) -> Callable[..., CalibrateConfig]:
    """``config(kind="local")``: validated, with six images to fit and two clicks."""

    def make(**values) -> CalibrateConfig:
        given = {
            "kind": "temperature",
            "source": f"{coco_folder}",
            "backbone": backbone,
            "out": str(tmp_path / "calibrated"),
            "cache": str(tmp_path / "answers"),
            "held_out": 0.25,
            "cpu": True,
            "protocol": ProtocolConfig(clicks=2),
            "sampling": PixelConfig(pixels=600),
        }
        if "export" in values or values.get("source", "") is None:
            given.pop("backbone" if "export" in values else "source")
        made = CalibrateConfig(**(given | values))
        made.validate()
        return made

    return make
