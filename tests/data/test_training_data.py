"""Training samples are numbered: reproducible, balanced, and never empty."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ruac.base.errors import RuacError
from ruac.data.augment import AugmentConfig
from ruac.data.coco import CocoFolder
from ruac.data.sample import Record, Sample
from ruac.data.training import TrainingDataConfig, TrainingSet

STILL = AugmentConfig(
    flip=False, crop=1.0, rotation=0, shear=0, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0
)


class Counted:
    """90 images of origin a, 9 of b, 1 of c; remembers which were read."""

    name = "counted"

    def __init__(self):
        self.records = [Record(str(n), Path(), ("1", "2"), o) for n, o in enumerate("a" * 90 + "b" * 9 + "c")]
        self.read = []

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.read.append(index)
        masks = np.zeros((2, 8, 8), bool)
        masks[0, :4], masks[1, :, :4] = True, True
        return Sample(self.records[index], np.zeros((8, 8, 3), np.uint8), masks)


@pytest.fixture
def stream(coco_folder):
    def make(seed=0, side=64, length=1000, **config):
        dataset = CocoFolder(coco_folder, split="train", name="shapes")
        return TrainingSet(dataset, TrainingDataConfig(**config), side=side, seed=seed, length=length)

    return make


def equal(first, second):
    return all(torch.equal(first[key], second[key]) for key in ("image", "masks", "valid"))


def test_shapes_and_types(stream):
    samples = stream(objects=4, min_pixels=20, augment=AugmentConfig(crop=0.3))
    assert len(samples) == 1000
    counts = set()
    for number in range(30):
        item = samples[number]
        assert item["image"].shape == (3, 64, 64)
        assert item["image"].dtype == torch.float32
        assert item["masks"].shape == (4, 64, 64)
        assert item["masks"].dtype == item["valid"].dtype == torch.bool
        areas = item["masks"].flatten(1).sum(dim=1)
        assert torch.equal(areas >= 20, item["valid"])
        assert (areas[~item["valid"]] == 0).all()
        assert item["valid"][0]
        counts.add(int(item["valid"].sum()))
    assert {2, 3} <= counts <= {1, 2, 3}


def test_a_sample_depends_on_seed_and_number_alone(stream):
    samples, again = stream(), stream(length=7)
    items = [samples[n] for n in range(6)]
    for n in (3, 0, 5, 1):
        assert equal(items[n], again[n])
    assert not equal(items[0], items[1])
    assert not equal(items[0], stream(seed=1)[0])
    assert samples[(1 << 40) - 1]["valid"].any()  # any number, however large


def test_workers_change_nothing(stream):
    samples = stream(length=6)
    (together,) = DataLoader(samples, batch_size=6, num_workers=2)
    for n in range(6):
        assert equal(samples[n], {key: value[n] for key, value in together.items()})


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_origins_are_drawn_by_a_power_of_their_size(balance):
    dataset, draws = Counted(), 600
    config = TrainingDataConfig(balance=balance, min_pixels=1, augment=STILL)
    samples = TrainingSet(dataset, config, side=8, seed=0, length=draws)
    assert samples.origins == ["a", "b", "c"]
    for number in range(draws):
        samples[number]
    weight = np.array([90.0, 9.0, 1.0]) ** balance
    shares = weight / weight.sum()
    images = np.bincount(dataset.read, minlength=100)
    for found, share in zip((images[:90].sum(), images[90:99].sum(), images[99]), shares, strict=True):
        assert abs(found / draws - share) < 3.5 * np.sqrt(share * (1 - share) / draws)
    expected = draws * shares[1] / 9
    assert ((images[90:99] - expected) ** 2 / expected).sum() < 26.1  # chi-square, 8 degrees: p = 0.001


def test_objects_are_drawn_at_random(stream):
    """With one object an image, every object of it has its turn."""
    dataset = Counted()
    samples = TrainingSet(
        dataset, TrainingDataConfig(objects=1, min_pixels=1, augment=STILL), side=8, seed=0, length=100
    )
    first = sum(bool(samples[n]["masks"][0, 0, 7]) for n in range(100))
    assert 30 < first < 70


def test_crops_that_miss_every_object_are_drawn_again(stream):
    samples = stream(min_pixels=700, augment=AugmentConfig(crop=0.2))
    for number in range(10):
        assert samples[number]["masks"][0].sum() >= 700


def test_objects_that_are_never_large_enough_are_an_error(stream):
    with pytest.raises(RuacError, match=r"^shapes: no object of data\.min_pixels=4097 in 100 draws$"):
        stream(min_pixels=4097)[0]


@pytest.mark.parametrize(("key", "value"), [("objects", 0), ("balance", -0.1), ("balance", 1.1), ("min_pixels", 0)])
def test_impossible_values_are_named(key, value):
    with pytest.raises(RuacError, match=rf"data\.{key}: {value}"):
        TrainingDataConfig(**{key: value}).validate()


def test_the_least_possible_values_are_possible():
    TrainingDataConfig(objects=1, balance=0.0, min_pixels=1).validate()
    TrainingDataConfig(balance=1.0).validate()
