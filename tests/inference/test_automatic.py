"""All masks of a picture: which stay, in what order, and what a COCO reader makes of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from torch import nn

from ruac.base.errors import RuacError
from ruac.data.synthetic.scenes import SceneDataset
from ruac.inference.automatic import AutomaticConfig, AutomaticMasks, grid_points, save_coco, suppress
from ruac.inference.model import Prediction, UncertainSam
from ruac.inference.predictor import Predictor

HEIGHT, WIDTH = 96, 128


def soft_iou(a, b):
    return np.minimum(a, b).sum() / np.maximum(a, b).sum()


def test_suppression_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(10):
        blocks = np.repeat(np.repeat(rng.random((25, 3, 3)), 4, 1), 4, 2)
        maps, reliability = (blocks**3).astype(np.float32), rng.permutation(25) / 25
        kept = []
        for index in sorted(range(25), key=lambda index: -reliability[index]):
            if all(soft_iou(maps[index], maps[other]) <= 0.35 for other in kept):
                kept.append(index)
        assert 1 < len(kept) < 25
        assert suppress(maps, reliability, 0.35) == kept


def test_what_both_doubt_does_not_make_two_objects():
    """The same hard masks: their difference is doubted in one pair and sure in the other."""
    core = np.zeros((2, 10, 10), np.float32)
    core[:, :5] = 1
    doubted, sure = core.copy(), core.copy()
    doubted[0, 5:9], doubted[1, 5:9] = 0.51, 0.49
    sure[0, 5:9] = 1
    for maps in (doubted, sure):
        assert ((maps > 0.5) == (sure > 0.5)).all()
    assert suppress(doubted, np.array([0.9, 0.8]), 0.7) == [0]
    assert suppress(sure, np.array([0.9, 0.8]), 0.7) == [0, 1]


class Flood(UncertainSam):
    """Answers a click by the region of equal colour under it; two worse candidates beside it."""

    def __init__(self, regions):
        nn.Module.__init__(self)
        self.regions = torch.from_numpy(regions)  # [32, 32], ids at stride 4
        self.backbone = SimpleNamespace(frame=lambda size: (128, 128), mask_stride=4, boxes_only=False)
        self.filters, self.looks = (), None

    def encode(self, images):
        return SimpleNamespace(gather=lambda index: None)

    def decode(self, features, prompts):
        x, y = (prompts.points[:, 0] / 4).long().unbind(1)
        inside = self.regions == self.regions[y, x][:, None, None]  # [N, 32, 32]
        logits = torch.stack([inside * 16.0 - 8, inside * 16.0 - 8, inside * 2.0 - 1, inside * 2.0 - 1], dim=1)
        # The more of a region lies left of the click, the higher the score: one click of each region wins.
        score = 0.9 + 0.09 * x / 32
        return Prediction(logits, torch.stack([score, score, score, score - 0.5], dim=1), SimpleNamespace(), None)


@pytest.fixture(scope="module")
def scene():
    regions = np.zeros((32, 32), int)
    regions[4:12, 4:12], regions[16:28, 6:14], regions[8:24, 20:30] = 1, 2, 3
    return Flood(regions), np.kron(regions, np.ones((3, 4), int))  # [96, 128]


def test_a_synthetic_scene_gives_each_object_once(scene):
    model, truth = scene
    found = AutomaticMasks(Predictor(model, device="cpu"), AutomaticConfig(points_per_side=12)).generate(
        np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    )
    assert len(found) == 4
    assert [entry["reliability"] for entry in found] == sorted((entry["reliability"] for entry in found), reverse=True)
    for entry in found:
        mask, ((x, y),) = entry["segmentation"], entry["point_coords"]
        region = truth == truth[int(y), int(x)]
        assert (mask & region).sum() / (mask | region).sum() > 0.9
        assert entry["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert entry["bbox"] == box
        assert entry["reliability"] == min(entry["predicted_iou"], entry["expected_iou"]) >= 0.7


def all_at_full_size(predictor, picture, config):
    """The order without a shortcut: every candidate at the picture's size, then what is reliable, then each once."""
    predictor.set_image(picture)
    points = grid_points(config.points_per_side) * picture.shape[1::-1]
    whole = predictor.predict(points[:, None], np.ones((len(points), 1)))
    chosen = [
        (float(answer.trust[index]), tuple(point), int(answer.tokens[index]), answer.masks[index], probability)
        for point, answer in zip(points.tolist(), whole.each(), strict=True)
        for index, probability in enumerate(answer.probability)
        if answer.trust[index] >= config.min_reliability and answer.masks[index].sum() >= config.min_area
    ]
    kept = []
    for one in sorted(chosen, key=lambda one: -one[0]):
        overlaps = [soft_iou(one[4], other[4]) for other in kept]
        # At the decoder's resolution an overlap is a hundredth more or less, which decides where it is that close.
        assert all(abs(overlap - config.max_overlap) > 0.01 for overlap in overlaps), overlaps
        if all(overlap <= config.max_overlap for overlap in overlaps):
            kept.append(one)
    return kept, len(chosen)


def check_against_full_size(predictor, picture, config):
    expected, candidates = all_at_full_size(predictor, picture, config)
    found = AutomaticMasks(predictor, config).generate(picture)
    assert 1 < len(expected) < candidates
    for entry, (reliability, point, token, mask, _) in zip(found, expected, strict=True):
        assert (tuple(entry["point_coords"][0]), entry["token"]) == (point, token)
        np.testing.assert_array_equal(entry["segmentation"], mask)
        assert entry["reliability"] == pytest.approx(reliability, abs=1e-5)


def test_the_masks_are_those_of_all_candidates_at_full_size(scene):
    check_against_full_size(
        Predictor(scene[0], device="cpu"), np.zeros((HEIGHT, WIDTH, 3), np.uint8), AutomaticConfig(points_per_side=8)
    )


def test_so_they_are_of_the_embedded_model():
    picture = np.asarray(SceneDataset(1, seed=3)[0].image)
    config = AutomaticConfig(points_per_side=4, min_reliability=0.5, max_overlap=0.8)
    check_against_full_size(Predictor(device="cpu"), picture, config)


def test_only_what_is_left_is_made_at_full_size(scene, monkeypatch):
    """Maps of the picture's size are what memory and time go to."""
    predictor = Predictor(scene[0], device="cpu")
    made, maps = [], Prediction.maps

    def counted(self, tokens, size, **how):
        made.append((size, tokens.numel()))
        return maps(self, tokens, size, **how)

    monkeypatch.setattr(Prediction, "maps", counted)
    found = AutomaticMasks(predictor, AutomaticConfig(points_per_side=12)).generate(np.zeros((96, 128, 3), np.uint8))
    assert sum(count for size, count in made if size == (32, 32)) == 3 * 12**2
    assert sum(count for size, count in made if size == (96, 128)) == 3 * len(found)


def test_a_threshold_above_all_keeps_none(scene):
    config = AutomaticConfig(points_per_side=4, min_reliability=1.0)
    assert AutomaticMasks(Predictor(scene[0], device="cpu"), config).generate(np.zeros((96, 128, 3), np.uint8)) == []


def test_batches_do_not_matter(scene):
    picture, results = np.zeros((HEIGHT, WIDTH, 3), np.uint8), []
    for batch in (5, 64):
        config = AutomaticConfig(points_per_side=6, points_per_batch=batch)
        results.append(AutomaticMasks(Predictor(scene[0], device="cpu"), config).generate(picture))
    assert len(results[0]) > 1
    for one, another in zip(*results, strict=True):
        assert one["point_coords"] == another["point_coords"]
        np.testing.assert_array_equal(one["segmentation"], another["segmentation"])


def test_a_coco_reader_reads_the_file(scene, tmp_path):
    found = AutomaticMasks(Predictor(scene[0], device="cpu"), AutomaticConfig(points_per_side=12)).generate(
        np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    )
    path = save_coco(tmp_path / "masks.json", found, file_name="a.png", size=(HEIGHT, WIDTH))
    coco = COCO(str(path))
    for entry, annotation in zip(found, coco.loadAnns(coco.getAnnIds()), strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), entry["segmentation"])
        assert annotation["score"] == annotation["reliability"] == entry["reliability"]
        assert annotation["area"] == entry["area"]
    assert coco.loadImgs(1)[0]["file_name"] == "a.png"


def test_the_grid():
    points = grid_points(4)
    assert points[:5].tolist() == [[0.125, 0.125], [0.375, 0.125], [0.625, 0.125], [0.875, 0.125], [0.125, 0.375]]
    with pytest.raises(RuacError, match=r"automatic.points_per_side: 0, expected"):
        AutomaticMasks(None, AutomaticConfig(points_per_side=0))
    with pytest.raises(RuacError, match=r"automatic.max_overlap: 2, expected"):
        AutomaticMasks(None, AutomaticConfig(max_overlap=2))
