"""People who disagree in a known ring, and models whose uncertainty is, or is not, that ring."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch
from builders import decoded_of, with_head
from PIL import Image

from ruac.backbone import Features
from ruac.base.errors import RuacError
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.sweep.config import ModelConfig
from ruac.inference.model import UncertainSam
from ruac.studies.experiments import annotators
from ruac.studies.experiments.annotators import AnnotatorsConfig, collect, compare, mask_sources, run_annotators
from ruac.studies.experiments.people import disagreement, disputed_objects, open_photographs
from ruac.uncertainty import BayesianConfig

SIDE = 64
RADII = (12, 14, 16, 14)
"""Of the disk that each person drew: pixels between 12 and 16 from the centre are disputed."""


def disk(radius, side=SIDE):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(y, x) <= radius


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs, each with the disks of four people and a background."""
    root = tmp_path_factory.mktemp("people")
    for name in ("images", "regions"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b_2"):
        picture = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{name}.png")
        for person, radius in enumerate(RADII):
            ids = np.where(disk(radius), 7, 300).astype(np.uint16)
            Image.fromarray(ids).save(root / "regions" / f"{name}_{person}.png")
    return root


def make_config(folder, **fields):
    defaults = {"data": str(folder), "cpu": True, "pixels": 10000, "replicates": 20}
    return AnnotatorsConfig(**(defaults | {"protocol": ProtocolConfig(clicks=1)} | fields))


class Oracle(torch.nn.Module):
    """A backbone that answers the disk of radius 14 with logits +-20, and +-0.1 where `uncertain`."""

    image_size = SIDE
    channels = token_dim = 1
    mask_stride, boxes_only = 4, False

    def frame(self, size):
        return SIDE, SIDE

    def __init__(self, uncertain, sign=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        sign = np.where(disk(14), 1.0, -1.0) if sign is None else sign
        self.logit = torch.tensor(sign * np.where(uncertain, 0.1, 20.0), dtype=torch.float32)

    def encode(self, images):
        return Features(torch.zeros(len(images), 1, 4, 4), [])

    def decode(self, features, prompts):
        return decoded_of(self.logit.expand(len(prompts.points), 4, SIDE, SIDE))


def values(table, **where):
    rows = table[(table.scope == "all") & (table[list(where)] == pd.Series(where)).all(axis=1)]
    return rows.value.to_numpy()


def scored(folder, models, **fields):
    config = make_config(folder, **fields)
    pixels = collect(open_photographs(folder), models, config)
    return pixels, compare(pixels, replicates=20, seed=0, baseline=next(s for s in pixels.scores if "entropy" in s))


def test_frequency_is_the_share_of_the_others(folder):
    _, people = open_photographs(folder)[0].read()
    found = disputed_objects(people, 0, match=0.5, least=3, areas=(10, 2000))
    assert found.numbers.tolist() == [7]
    np.testing.assert_allclose(found.frequency[0], np.mean([disk(r) for r in RADII[1:]], axis=0), atol=1e-7)
    assert (found.masks[0] == disk(12)).all()
    iou = disk(12).sum() / disk(16).sum()
    strict = disputed_objects(people, 0, match=iou + 0.01, least=2, areas=(10, 2000))
    assert (strict.frequency[0] == disk(14)).all()  # the one with radius 16 drew another object
    assert not len(disputed_objects(people, 0, match=iou + 0.01, least=3, areas=(10, 2000)).numbers)
    both = disputed_objects(people, 0, match=0.5, least=3, areas=(10, SIDE**2))
    assert both.numbers.tolist() == [7, 300]
    people[1] = np.where(people[1] == 7, 0, people[1])  # unlabelled is no region
    assert disputed_objects(people, 0, match=0.5, least=2, areas=(10, 2000)).frequency.min() == 0
    assert not len(disputed_objects(people, 0, match=0.5, least=3, areas=(10, 2000)).numbers)


def test_disagreement_is_the_entropy():
    np.testing.assert_allclose(disagreement(np.array([0, 0.5, 1, 0.25])), [0, 1, 0, 0.8112781])


def test_known_answers(folder):
    """Two others drew radius 12 and two 16, so that the ring between has the largest disagreement there is."""
    ring = disk(16) & ~disk(12)
    flat = np.ones_like(ring)

    class One:
        image = None
        people = (folder / "regions" / "a_0.png",)

        def read(self):
            ids = [np.where(disk(r), 7, 300) for r in (14, 12, 12, 16, 16)]
            return np.zeros((SIDE, SIDE, 3), np.uint8), ids

    models = {"perfect": UncertainSam(Oracle(ring), None), "flat": UncertainSam(Oracle(flat), None)}
    pixels = collect([One()], models, make_config(folder, people=4))
    table = compare(pixels, replicates=5, seed=0, baseline="flat.entropy")
    assert len(np.unique(pixels.object)) == 1
    assert pixels.found.all()
    for aggregation in ("pooled", "photograph"):
        for controlled in (False, True):
            where = {"aggregation": aggregation, "controlled": controlled}
            assert values(table, score="perfect.entropy", measure="auroc", **where) == [1]
            assert values(table, score="flat.entropy", measure="auroc", **where) == [0.5]
            assert values(table, score="flat.entropy", measure="pearson", **where) == [0]
            assert values(table, score="perfect.entropy - flat.entropy", measure="auroc", **where) == [0.5]
            assert values(
                table, score="perfect.contour", measure="auroc", aggregation=aggregation, controlled=True
            ) == [pytest.approx(0.5, abs=0.02)]
        plain = {"aggregation": aggregation, "controlled": False}
        assert values(table, score="perfect.entropy", measure="pearson", **plain) == [pytest.approx(1)]
        assert values(table, score="perfect.entropy", measure="spearman", **plain) == [pytest.approx(1)]


def test_the_band_follows_the_contour_and_pixels_are_drawn(folder):
    models = {"flat": UncertainSam(Oracle(disk(99)), None)}
    pixels, _ = scored(folder, models, pixels=100)
    assert len(np.unique(pixels.object)) == 2 * len(RADII)
    assert (np.bincount(pixels.object) == 100).all()
    radius = np.array([max(3, np.sqrt(disk(r).sum()) / 4) for r in RADII * 2])
    assert (-pixels.scores["person.contour"] <= radius[pixels.object]).all()
    assert set(pixels.photograph) == {0, 1}
    again, _ = scored(folder, models, pixels=100)
    assert (again.target == pixels.target).all()


def test_models_that_share_masks_are_prompted_once(folder, nano, monkeypatch):
    models = {"vanilla": UncertainSam(nano, None)}
    for name, posterior in (("signed", "signed"), ("own", "nonnegative")):
        models[name] = with_head(nano, BayesianConfig(posterior=posterior))
    assert mask_sources(models) == {"vanilla": "vanilla", "signed": "vanilla", "own": "own"}
    calls = []
    original = annotators.prompt_objects
    monkeypatch.setattr(annotators, "prompt_objects", lambda *a, **k: calls.append(1) or original(*a, **k))
    pixels = collect(open_photographs(folder)[:1], models, make_config(folder))
    assert len(calls) == 2 * len(RADII)
    maps = ("total", "aleatoric", "epistemic")
    expected = {"vanilla.entropy", "vanilla.contour", "own.contour", "person.contour"}
    assert set(pixels.scores) == expected | {f"{name}.{kind}" for name in ("signed", "own") for kind in maps}
    assert all(0 <= v.min() <= v.max() <= 1 for name, v in pixels.scores.items() if "contour" not in name)
    assert (pixels.strata["signed.total"] == pixels.strata["vanilla.entropy"]).all()


def test_run_writes_everything(folder, nano, tmp_path, monkeypatch):
    models = {"vanilla": UncertainSam(nano, None), "ruac": with_head(nano)}
    monkeypatch.setattr(annotators, "load_models", lambda config, device: models)
    config = make_config(folder, out=str(tmp_path / "out"), models=[ModelConfig("ruac", export="x")], limit=1)
    out = run_annotators(config)
    content = json.loads((out / "annotators.json").read_text())
    assert content["config"]["protocol"]["clicks"] == 1
    assert set(content["models"]) == {"vanilla", "ruac"}
    assert len(content["data"]) == 1 + len(RADII)
    assert len(content["rows"]) == len(pd.read_csv(out / "annotators.csv"))
    assert {"config.yaml", "environment.json", "annotators.png"} <= {path.name for path in out.iterdir()}
    assert not list(out.glob("*.tmp"))
    with Image.open(out / "annotators.png") as figure:
        figure.load()


def test_unusable_input(folder, tmp_path):
    with pytest.raises(RuacError, match=r"images/ and regions/"):
        open_photographs(tmp_path)
    for name in ("images", "regions"):
        (tmp_path / name).mkdir()
    with pytest.raises(RuacError, match="no image"):
        open_photographs(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(RuacError, match=r"two or more files regions/a_K\.png"):
        open_photographs(tmp_path)
    for person in range(2):
        Image.new("L", (8, 9), 1).save(tmp_path / "regions" / f"a_{person}.png")
    with pytest.raises(RuacError, match=r"a_0\.png: is 8x9 pixels"):
        open_photographs(tmp_path)[0].read()
    with pytest.raises(RuacError, match="no region of min_area=5000"):
        collect(
            open_photographs(folder), {"flat": UncertainSam(Oracle(disk(9)), None)}, make_config(folder, min_area=5000)
        )
    for wrong in ({"match": 0.0}, {"people": 0}, {"limit": -1}, {"models": []}):
        with pytest.raises(RuacError):
            dataclasses.replace(make_config(folder), **wrong).validate()
