"""The temperature fitted on a data set: which pixels it sees, and what is written down."""

import json

import numpy as np
import pytest
import torch

from ruac.base.errors import RuacError
from ruac.calibration import temperature as fit
from ruac.calibration.temperature import TemperatureFitConfig, draw_pixels, run_fit
from ruac.data.open import open_dataset
from ruac.evaluation import score
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import answer_image
from ruac.inference.export import fingerprint, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.temperature_file import read_temperature
from ruac.uncertainty.temperature import temperature_nll

PROTOCOL = ProtocolConfig(clicks=2)


def config(**values):
    made = TemperatureFitConfig(source="unused", cpu=True, protocol=PROTOCOL, **values)
    made.validate()
    return made


@pytest.mark.parametrize("region", ["band", "image"])
def test_pixels_are_those_of_the_region_after_the_last_click(nano, coco_folder, region):
    """With more pixels than there are, all are drawn: counts and sums as of the sweep's own answers."""
    dataset = open_dataset(coco_folder)
    logits, target = draw_pixels(nano, dataset, config(images=0, pixels=10**9, region=region))
    inside, positive, total = 0, 0, 0.0
    for sample in (dataset[n] for n in range(len(dataset))):
        answer = answer_image({"vanilla": UncertainSam(nano, None)}, sample, PROTOCOL)["vanilla"]
        where = object_band(sample.masks) if region == "band" else np.ones_like(sample.masks)
        inside, positive = inside + where.sum(), positive + (sample.masks & where).sum()
        total += answer.probability.double().numpy()[where].sum()
    assert (len(logits), int(target.sum())) == (inside, positive)
    assert float(logits.double().sigmoid().sum()) == pytest.approx(total, rel=1e-5)


def test_draws_are_bounded_equal_among_objects_and_repeatable(nano, coco_folder, monkeypatch):
    dataset = open_dataset(coco_folder)
    wanted = config(images=3, pixels=60)
    first, again = draw_pixels(nano, dataset, wanted), draw_pixels(nano, dataset, wanted)
    assert len(first[0]) == 3 * 60
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], draw_pixels(nano, dataset, config(images=3, pixels=60, seed=1))[0])
    monkeypatch.setattr(score, "BLOCK", 1)
    one_by_one = draw_pixels(nano, dataset, wanted)
    assert torch.allclose(one_by_one[0], first[0], atol=1e-3)
    assert torch.equal(one_by_one[1], first[1])


def test_the_file_says_what_was_fitted_on_what(shelf, coco_folder, tmp_path, nano, monkeypatch):
    logits = 4 * torch.randn(100_000)
    target, asked = torch.rand(len(logits)) < (logits / 2).sigmoid(), []

    def drawn(backbone, dataset, config):
        asked.append((dataset.name, len(dataset), config.region))
        return logits, target

    monkeypatch.setattr(fit, "draw_pixels", drawn)
    places = {
        "source": f"{coco_folder}@train",
        "backbone": str(shelf / "backbone.yaml"),
        "out": str(tmp_path / "t"),
    }
    out = run_fit(TemperatureFitConfig(**places, cpu=True))
    assert asked == [(coco_folder.name, 6, "band")]
    found = load_exported(out).head.config.temperature
    assert found == pytest.approx(2, rel=0.02)
    record = json.loads((out / "config.json").read_text())["record"]
    assert record["nll"]["before"] == temperature_nll(logits, target, 1.0)
    assert record["nll"]["after"] == temperature_nll(logits, target, found)
    assert record["drawn"] == len(logits)
    assert record["temperature_fit"].items() >= places.items()
    assert {"source", "environment", "backbone"} <= record.keys()


def test_a_file_of_an_older_fit_still_loads(nano, tmp_path):
    own = {"sha256": fingerprint(nano.sam), "image_size": nano.image_size}
    (tmp_path / "t.json").write_text(json.dumps({"temperature": 2.5, "backbone": own}))
    assert read_temperature(tmp_path / "t.json", nano) == 2.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"region": "edge"}, "band or image"),
        ({"out": "t.json"}, "expected a folder"),
        ({"images": -1}, "at least 0"),
        ({"pixels": 0}, "at least 1"),
        ({"protocol": ProtocolConfig(next_click="replay")}, "expected own_error"),
    ],
)
def test_impossible_configs(values, message):
    with pytest.raises(RuacError, match=message):
        TemperatureFitConfig(source="x", **values).validate()
