"""The experiment on shifts: what it measures against a count by hand, and what it leaves."""

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from ruac.backbone import load_backbone
from ruac.base.errors import RuacError
from ruac.conformal.mask_losses import INNER, OUTER
from ruac.data.open import open_dataset
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.inference.model import UncertainSam
from ruac.studies.experiments.conformal_shift import (
    ConformalShiftConfig,
    halves,
    measure,
    run_conformal_shift,
    scores_at,
    weighted_scores,
)

PROTOCOL = ProtocolConfig(clicks=1)


@pytest.fixture(scope="module")
def measured(nano, coco_folder):
    return measure(UncertainSam(nano, None), open_dataset(coco_folder), list(range(8)), PROTOCOL)


def test_scores_are_those_of_the_masks(measured, nano, coco_folder):
    dataset, outer, inner = open_dataset(coco_folder), 40, 25
    coverage, purity, sizes = [], [], []
    for sample in (dataset[n] for n in range(8)):
        p = answer_image({"": UncertainSam(nano, None)}, sample, PROTOCOL)[""].probability.numpy()
        around, within = p >= OUTER[outer], p >= INNER[inner]
        coverage.append(np.mean([o[m].mean() for o, m in zip(around, sample.masks, strict=True)]))
        purity.append(np.mean([m[i].mean() if i.any() else 1 for i, m in zip(within, sample.masks, strict=True)]))
        sizes += (around.sum((1, 2)) / sample.masks.sum((1, 2))).tolist()
    found = scores_at(measured, outer, inner)
    assert found["coverage"] == pytest.approx(np.mean(coverage))
    assert found["purity"] == pytest.approx(np.mean(purity))
    assert found["outer_size"] == pytest.approx(np.median(sizes), rel=1e-5)
    assert (found["whole_picture"], found["empty"]) == (0, 0)
    safest = scores_at(measured, len(OUTER) - 1, len(INNER) - 1)
    assert (safest["coverage"], safest["purity"], safest["whole_picture"], safest["empty"]) == (1, 1, 1, 1)


def test_some_of_the_pictures(measured):
    which = np.array([5, 2])
    some = measured.of(which)
    assert (some.missed == measured.missed[which]).all()
    assert sorted(np.bincount(some.image)) == sorted(np.bincount(measured.image)[which])
    for place, image in enumerate(which):
        assert (some.outer[some.image == place] == measured.outer[measured.image == image]).all()


def test_weights_without_a_shift_change_little_and_count_nearly_all(measured):
    many = measured.of(np.arange(8).repeat(1))
    found = weighted_scores(many, many, many.features, 0.4, 0)
    assert 1 <= found["effective"] <= 8


def test_it_leaves_table_record_and_figure(shelf, coco_folder, tmp_path):
    AcceleratorState._reset_state(reset_partial_state=True)
    config = ConformalShiftConfig(
        source=str(coco_folder),
        seen=f"{coco_folder}@train",
        domains=[str(shelf / "domains")],
        backbone=str(shelf / "backbone.yaml"),
        alphas=[0.3, 0.4],
        limit=3,
        splits=5,
        cpu=True,
        protocol=PROTOCOL,
        out=str(tmp_path),
    )
    config.validate()
    run_conformal_shift(config)
    table = pd.read_csv(tmp_path / "conformal_shift.csv")
    assert len(table) == 2 * 2 + 2 * 2 * 2
    assert set(table.fit) == {"the other half", "training pictures", "source", "source, weighted"}
    assert ((table.coverage >= 0) & (table.coverage <= 1)).all()
    assert (tmp_path / "conformal_shift.png").is_file()
    with pytest.raises(RuacError, match=r"half of the split: 4 images, but alpha=0.05 needs at least 19"):
        run_conformal_shift(ConformalShiftConfig(**(vars(config) | {"alphas": [0.3, 0.05]})))


@pytest.mark.slow
def test_held_out_source_pictures_are_covered(shared_data):
    """Real pictures that nano has not seen: the mean over halves is the promise, up to what 80 pictures can tell."""
    dataset = open_dataset(shared_data / "source", split="val")
    found = measure(UncertainSam(load_backbone("nano"), None), dataset, list(range(0, 240, 3)), ProtocolConfig())
    config = ConformalShiftConfig(source="-", backbone="nano", splits=300)
    scores = halves(found, config, 0.1)
    assert scores["coverage"] == pytest.approx(0.91, abs=0.03)
    assert scores["purity"] >= 0.9 - 0.02
