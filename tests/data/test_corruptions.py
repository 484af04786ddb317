"""Corruption suites: the physics of fog and rain, ImageNet-C as its library has it, and what may never change."""

import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecorruptions
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from ruac.base.errors import RuacError
from ruac.data.open import validate_dataset
from ruac.data.sample import MaskDataset, Record, Sample
from ruac.data.synthetic import corruptions
from ruac.data.synthetic.corruptions import (
    AIR,
    CORRUPTIONS,
    FOCAL,
    CorruptedDataset,
    depth_plane,
    fog_over_plane,
    parse_corruption,
    rain_over_plane,
)

NOT_MONOTONE = {"glass_blur", "snow", "frost", "imagenet_fog"}  # in pixel change, by the benchmark's own constants
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n == "glass_blur" else n for n in CORRUPTIONS]  # it is compiled
NO_MASKS = np.zeros((0, 64, 96), bool)


class Pictures:
    """Pictures of soft blobs with two overlapping masks each."""

    def __init__(self, *sizes: tuple[int, int], name: str = "blobs") -> None:
        self.name, self.sizes = name, sizes
        self.records = [
            Record(id=f"{i:03d}", path=Path(f"{i:03d}.png"), object_ids=("a", "b")) for i in range(len(sizes))
        ]

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
        waves = (
            np.sin(9 * x + np.arange(3) + index) * np.cos(7 * y) + 0.6 * ((6 * x).astype(int) + (5 * y).astype(int)) % 2
        )
        image = np.uint8(255 * (0.1 + 0.8 * (waves - waves.min()) / np.ptp(waves)))
        masks = np.zeros((2, height, width), bool)
        masks[0, height // 8 : height // 2, width // 8 : width // 2] = True
        masks[1, height // 3 : 7 * height // 8, width // 3 : 7 * width // 8] = True
        return Sample(self.records[index], image, masks)


def strongest(name):
    return list(CORRUPTIONS[name].severities)[-1]


def digest(dataset, order):
    return [hashlib.sha256(dataset[i].image.tobytes() + dataset[i].masks.tobytes()).hexdigest() for i in order]


def _change(image, clean):
    return np.abs(image.astype(float) - clean).mean()


def _decorrelation(image, clean):
    return 1 - np.corrcoef(image.ravel(), clean.ravel())[0, 1]


def picture(height=64, width=96):
    return Pictures((height, width))[0].image


def test_the_suite_is_fog_rain_and_the_common_fifteen():
    common = ["imagenet_fog" if name == "fog" else name for name in imagecorruptions.get_corruption_names("common")]
    assert list(CORRUPTIONS) == ["fog", "rain", *common]
    assert all(list(CORRUPTIONS[name].severities) == list("12345") for name in common)
    assert list(CORRUPTIONS["rain"].severities) == ["light", "medium", "heavy"]


def test_fog_obeys_koschmieder_at_single_pixels():
    image, beta = picture(), 0.02
    foggy, _ = fog_over_plane(image, NO_MASKS, beta, np.random.default_rng(3))
    depth = depth_plane(64, 96, np.random.default_rng(3)).astype(float)
    for row, column in [(0, 0), (0, 95), (31, 50), (63, 0), (63, 95)]:
        through = np.exp(-beta * depth[row, column])
        expected = image[row, column] * through + 255 * float(AIR) * (1 - through)
        np.testing.assert_allclose(foggy[row, column], expected, atol=0.51)


def test_no_attenuation_is_no_fog():
    image = picture()
    np.testing.assert_array_equal(fog_over_plane(image, NO_MASKS, 0.0, np.random.default_rng(0))[0], image)


def test_assumed_depth_is_in_metres_and_falls_downwards_at_any_size():
    for height, width in [(40, 65), (300, 200)]:
        for seed in range(5):
            depth = depth_plane(height, width, np.random.default_rng(seed))
            assert depth.shape == (height, width)
            assert depth.min() > 10
            assert depth.max() < 400
            assert depth[: height // 4].mean() > 2 * depth[-height // 4 :].mean()


@pytest.mark.parametrize("severity", ["light", "medium", "heavy"])
def test_rain_mixes_picture_fog_and_streaks_as_published(severity):
    """A black and a white picture under the same rain tell fog ``A`` and streaks ``R`` apart."""
    value = CORRUPTIONS["rain"].severities[severity]
    black, white = (
        rain_over_plane(np.full((200, 300, 3), grey, np.uint8), NO_MASKS, value, np.random.default_rng(5))[0] / 255
        for grey in (0, 255)
    )
    depth = depth_plane(200, 300, np.random.default_rng(5))[..., None]
    mist = (1 - white) / (1 - float(AIR))
    np.testing.assert_allclose(mist, np.broadcast_to(1 - np.exp(-value.fog * depth), mist.shape), atol=0.02)
    streaks = black - float(AIR) * (1 - np.exp(-value.fog * depth))
    brightest = np.exp(-value.streaks * np.maximum(2 * FOCAL * value.radius, depth))
    assert (streaks > -0.005).all()
    assert (streaks < brightest + 0.005).all()
    assert np.median(streaks) < 0.1
    assert (streaks > 0.5 * brightest).mean() > 0.005


@pytest.mark.parametrize("name", NAMES)
def test_severity_takes_the_picture_further_from_the_clean_one(name):
    clean = Pictures((96, 128), (131, 101), (120, 113))
    keys = list(CORRUPTIONS[name].severities)
    if name in NOT_MONOTONE:
        keys = [keys[0], keys[-1]]
    distance = _decorrelation if name in NOT_MONOTONE else _change
    distances = [
        np.mean([distance(found.image, clean[i].image) for i, found in enumerate(CorruptedDataset(clean, name, key))])
        for key in keys
    ]
    assert distances[0] > 0
    assert (np.diff(distances) > 0).all(), distances


@pytest.mark.parametrize("name", NAMES)
def test_pictures_of_any_shape_stay_valid_and_every_global_generator_untouched(name):
    clean = Pictures((65, 40), (40, 65), (300, 200))
    np.random.seed(1)
    before = (np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state(), random.getstate())
    corrupted = CorruptedDataset(clean, name, strongest(name))
    validate_dataset(corrupted)
    after = np.random.get_state()
    np.testing.assert_array_equal(after[1], before[0])
    assert after[2] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert random.getstate() == before[3]
    for index in range(3):
        found, expected = corrupted[index], clean[index]
        assert found.image.shape == expected.image.shape
        assert found.record is clean.records[index]
        assert not np.array_equal(found.image, expected.image)
        if name != "elastic_transform":
            np.testing.assert_array_equal(found.masks, expected.masks)


@pytest.mark.parametrize("name", ["fog", "rain", "impulse_noise", "frost", "elastic_transform"])
def test_order_and_threads_do_not_matter_but_the_image_does(name):
    dataset = CorruptedDataset(Pictures(*[(64, 48)] * 4), name, strongest(name))
    forwards = digest(dataset, range(4))
    assert digest(dataset, [3, 1, 0, 2]) == [forwards[i] for i in (3, 1, 0, 2)]
    with ThreadPoolExecutor(4) as pool:
        assert [d for (d,) in pool.map(lambda i: digest(dataset, [i]), range(4))] == forwards
    same = np.full((64, 96, 3), 90, np.uint8)
    value = CORRUPTIONS[name].severities[strongest(name)]
    drawn = [CORRUPTIONS[name].apply(same, NO_MASKS, value, np.random.default_rng(seed))[0] for seed in (0, 1)]
    assert name == "elastic_transform" or not np.array_equal(*drawn)  # which a uniform picture does not show


def test_another_process_draws_the_same():
    names = ["frost", "elastic_transform", "rain", "gaussian_noise", "impulse_noise", "fog", "snow"]
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_corruptions import *\n"
        f"for name in {names}: print(*digest(CorruptedDataset(Pictures((70, 50)), name, strongest(name)), [0]))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    here = {name: digest(CorruptedDataset(Pictures((70, 50)), name, strongest(name)), [0])[0] for name in names[::-1]}
    assert output == [here[name] for name in names]


@pytest.mark.parametrize("name", ["shot_noise", "zoom_blur", "brightness", "imagenet_fog", "elastic_transform"])
def test_imagenet_c_is_what_the_library_computes(name):
    image = picture()
    found, _ = CORRUPTIONS[name].apply(image, NO_MASKS, 4, np.random.default_rng(8))
    np.random.seed(int(np.random.default_rng(8).integers(2**32)))
    expected = imagecorruptions.corrupt(image, 4, "fog" if name == "imagenet_fog" else name)
    np.testing.assert_array_equal(found, expected)


def test_elastic_transform_bends_the_masks_with_the_picture():
    for seed in range(4):
        inside = np.hypot(*(np.indices((120, 160)) - np.array([60, 70])[:, None, None])) < 40
        painted = np.repeat(np.where(inside, 220, 30).astype(np.uint8)[..., None], 3, axis=2)
        bent, masks = CORRUPTIONS["elastic_transform"].apply(painted, inside[None], 5, np.random.default_rng(seed))
        wrong = ((bent[..., 0] > 125) != masks[0]).mean()
        moved = (masks[0] != inside).mean()
        assert moved > 0.01
        assert wrong < 0.2 * moved  # bilinear and nearest pixels differ on the outline


def test_elastic_transform_loses_no_object():
    masks = np.eye(60, dtype=bool).reshape(60, 1, 60) & (np.arange(40) == 20)[None, :, None]  # one pixel each
    for seed in range(3):
        _, moved = CORRUPTIONS["elastic_transform"].apply(picture(40, 60), masks, 5, np.random.default_rng(seed))
        assert moved.any(axis=(1, 2)).all()
        assert not np.array_equal(moved, masks)


def test_corrupted_data_set_keeps_the_protocol_and_names_what_was_done():
    corrupted = CorruptedDataset(Pictures((64, 64), name="PIDRay"), "fog", 3)
    assert isinstance(corrupted, MaskDataset)
    assert corrupted.name == "PIDRay+fog3"
    assert len(corrupted) == len(list(corrupted)) == 1
    assert CorruptedDataset(Pictures((64, 64), name="EgoHOS@val"), "rain", "heavy").name == "EgoHOS@val+rainheavy"


def test_pictures_too_small_for_the_benchmark_are_named():
    tiny = Pictures((20, 64))
    with pytest.raises(RuacError, match=r"000\.png: 64 x 20 pixels, contrast expects at least 32"):
        CorruptedDataset(tiny, "contrast", 1)[0]
    for name in ("fog", "rain"):
        assert CorruptedDataset(Pictures((9, 30)), name, strongest(name))[0].image.shape == (9, 30, 3)


def test_missing_library_says_what_to_install_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(corruptions, "LIBRARY", "no-such-distribution")
    with pytest.raises(RuacError, match=r"'snow': needs no-such-distribution; pip install 'ruac\[corruptions\]'"):
        CorruptedDataset(Pictures((64, 64)), "snow", 1)
    CorruptedDataset(Pictures((64, 64)), "rain", "light")


def test_sweep_entries_are_parsed():
    entries = OmegaConf.create("corruptions: [fog:1, rain:heavy, jpeg_compression:5]").corruptions
    assert [parse_corruption(entry) for entry in entries] == [
        ("fog", "1"),
        ("rain", "heavy"),
        ("jpeg_compression", "5"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foog:1", "'foog' is unknown, did you mean 'fog'"),
        ("jpeg:2", "expected one of: fog, rain, gaussian_noise"),
        ("fog:6", "severity '6', expected one of: fog:1, fog:2, fog:3, fog:4, fog:5"),
        ("fog", "severity '', expected one of: fog:1"),
        ("rain:3", "severity '3', expected one of: rain:light, rain:medium, rain:heavy"),
        ("", "'' is unknown, expected one of"),
    ],
)
def test_unknown_entries_name_what_there_is(text, message):
    with pytest.raises(RuacError, match=message):
        parse_corruption(text)
    name, _, severity = text.partition(":")
    with pytest.raises(RuacError):
        CorruptedDataset(Pictures((64, 64)), name, severity)
