"""One finished study of a tiny model over two tiny domains, that all tests of it share."""

import pytest
from accelerate.state import AcceleratorState, GradientState

from ruac.evaluation.protocol import ProtocolConfig
from ruac.studies.reliability_study.config import StudiedModel, StudyConfig
from ruac.studies.reliability_study.run import run_study


@pytest.fixture(scope="session")
def study_config(shelf, coco_folder, tmp_path_factory):
    """Eight pictures: six of the source to fit on and two held out; four of a domain to fit on and four to sweep."""
    config = StudyConfig(
        models=[
            StudiedModel("plain", backbone=str(shelf / "backbone.yaml")),
            StudiedModel("head", export=str(shelf / "head")),
        ],
        source=str(coco_folder),
        domains=[str(shelf / "domains")],
        calibrations=["temperature"],
        clusters=[2],
        pixels=[50],
        corruptions=["fog:1", "fog:5", "rain:heavy"],
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
    folder, lost = run_study(study_config)
    assert not lost
    return folder
