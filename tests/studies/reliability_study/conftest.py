"""One finished study of the embedded nano over two tiny domains, that all tests share."""

import shutil
from pathlib import Path

import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState

from ruac.evaluation.protocol import ProtocolConfig
from ruac.studies.reliability_study.config import StudiedModel, StudyConfig
from ruac.studies.reliability_study.run import run_study


@pytest.fixture(scope="session")
def backbone_yaml(tmp_path_factory):
    """The embedded nano at 64 pixels: random weights are worse than chance, which no temperature mends."""
    checkpoint = Path(__file__).parents[3] / "checkpoints" / "nano.safetensors"
    path = tmp_path_factory.mktemp("trained") / "backbone.yaml"
    path.write_text(yaml.safe_dump({"kind": "nano", "checkpoint": str(checkpoint), "image_size": 64}))
    return str(path)


@pytest.fixture(scope="session")
def study_domains(coco_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unseen") / "domains"
    for name in ("first", "second"):
        shutil.copytree(coco_folder, folder / name)
    return folder


@pytest.fixture(scope="session")
def study_config(backbone_yaml, study_domains, coco_folder, tmp_path_factory):
    """Eight pictures: six of the source to fit on and two held out; four of a domain to fit on and four to sweep."""
    config = StudyConfig(
        models=[StudiedModel("plain", backbone=backbone_yaml)],
        source=str(coco_folder),
        domains=[str(study_domains)],
        calibrations=["temperature"],
        clusters=[2],
        pixels=[50],
        corruptions=["fog:5", "rain:heavy"],
        bounded=["none", "temperature"],
        alpha=0.3,
        held_out=0.25,
        limit=2,
        cpu=True,
        out=str(tmp_path_factory.mktemp("study") / "study"),
        protocol=ProtocolConfig(clicks=1),
    )
    config.validate()
    return config


@pytest.fixture(scope="session")
def finished_study(study_config):
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ruac.base.arrays.LEVEL", 0)  # deflating 3 MB a row takes longer than the row
        folder, lost = run_study(study_config)
    assert not lost
    return folder
