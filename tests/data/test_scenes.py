"""Procedural scenes: determinism, visible parts, shapes, and the written sets."""

import hashlib
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ruac.base.config import load_config
from ruac.base.errors import RuacError, run_tool
from ruac.data.coco import CocoFolder
from ruac.data.open import validate_dataset
from ruac.data.sample import MaskDataset
from ruac.data.synthetic.scene_sets import SceneSets, write_scene_sets
from ruac.data.synthetic.scenes import LAYOUTS, SceneConfig, SceneDataset
from ruac.data.synthetic.shapes import SHAPES, random_shape
from ruac.data.synthetic.textures import PATTERNS, SOURCE_PATTERNS, UNSEEN_PATTERNS, random_texture, smooth_noise

ROOT = Path(__file__).parents[2]
SMALL = SceneConfig(side=96, objects=(1, 4))


def equal(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.masks, b.masks)


def test_same_seed_same_bytes_and_different_seeds_differ():
    first, again = (SceneDataset(4, seed=3, config=SMALL) for _ in range(2))
    again[2]  # the order of reading does not matter
    assert all(equal(first[i], again[i]) for i in range(4))
    assert equal(first[-1], first[3])
    other = SceneDataset(4, seed=4, config=SMALL)
    assert not any(equal(first[i], other[i]) for i in range(4))
    assert not equal(first[0], first[1])
    assert equal(SceneDataset(9, seed=3, config=SMALL)[2], first[2])  # nor does the number of scenes


def test_another_process_draws_the_same_scene():
    code = (
        "import hashlib; from ruac.data.synthetic.scenes import SceneConfig, SceneDataset;"
        "s = SceneDataset(2, seed=8, config=SceneConfig(side=96), shift='elastic')[1];"
        "print(hashlib.sha256(s.image.tobytes() + s.masks.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    here = SceneDataset(2, seed=8, config=SceneConfig(side=96), shift="elastic")[1]
    assert there.strip() == hashlib.sha256(here.image.tobytes() + here.masks.tobytes()).hexdigest()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("side", [64, 160])
def test_masks_are_disjoint_visible_parts_of_known_number(layout, side):
    config = SceneConfig(side=side, objects=(2, 4), layout=layout)
    dataset = SceneDataset(15, seed=1, config=config)
    validate_dataset(dataset)
    few, many = (LAYOUTS[layout].crowd * n for n in config.objects)
    for sample in dataset:
        assert sample.image.shape == (side, side, 3)
        assert few <= len(sample.masks) <= many
        assert sample.masks.sum(axis=0).max() == 1
        assert sample.masks.sum(axis=(1, 2)).min() >= config.min_pixels


def test_objects_occlude_each_other_and_differ_from_the_background():
    dataset = SceneDataset(30, seed=2, config=SceneConfig(side=128))
    touching = 0
    contrast = []
    for sample in dataset:
        grown = np.stack([ndimage.binary_dilation(mask, iterations=2) for mask in sample.masks])
        touching += grown.sum(axis=0).max() > 1
        for mask, near in zip(sample.masks, grown, strict=True):
            edge = near & ~mask
            contrast.append(np.abs(sample.image[mask].mean(axis=0) - sample.image[edge].mean(axis=0)).max())
    assert touching >= 10
    assert np.median(contrast) > 20  # grey levels


def test_is_a_mask_dataset_with_records_of_its_own():
    dataset = SceneDataset(3, seed=0, config=SMALL)
    assert isinstance(dataset, MaskDataset)
    assert [r.id for r in dataset.records] == ["000000", "000001", "000002"]
    assert dataset.records[1].path == Path("scenes-source-seed0/000001.png")
    assert len(dataset[0].masks) == len(dataset.records[0].object_ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["side=32"], "side: 32, expected at least 64"),
        (["objects=[3,2]"], r"objects: \[3, 2\], expected"),
        (["objects=[1,2,3]"], r"objects: \[1, 2, 3\], expected"),
        (["layout=sea"], "layout: 'sea', expected one of: still_life, overhead, cells"),
        (["min_visible=1.5"], "expected at least 1, and 0 to 0.9"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(RuacError, match=message):
        load_config(SceneConfig, overrides=changes)


def test_impossible_requests_are_refused():
    with pytest.raises(RuacError, match="shift: 'snow', expected one of: texture_swap"):
        SceneDataset(1, seed=0, shift="snow")
    with pytest.raises(RuacError, match="count, seed"):
        SceneDataset(0, seed=0)
    with pytest.raises(RuacError, match="no room for 60 objects of 300 pixels at side 64"):
        SceneDataset(1, seed=0, config=SceneConfig(side=64, objects=(60, 60), min_pixels=300))[0]


@pytest.mark.parametrize("kind", SHAPES)
def test_shapes_are_distances_within_reach(kind):
    axis = np.arange(-80, 81, dtype=np.float32)
    for seed in range(5):
        distance = random_shape(np.random.default_rng(seed), (kind,), 50.0)(axis[None], axis[:, None])
        inside = distance < 0
        assert 200 < inside.sum() < 10000
        y, x = np.nonzero(inside)
        assert np.hypot(x - 80, y - 80).max() < 1.3 * 50
        exact = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
        near = np.abs(exact) <= 3
        assert np.abs(distance - exact)[near].mean() < 1.2  # about a pixel: half of it is the grid's


def test_textures_cover_their_range_and_keep_to_their_kinds():
    assert set(SOURCE_PATTERNS) | set(UNSEEN_PATTERNS) == set(PATTERNS)
    assert not set(SOURCE_PATTERNS) & set(UNSEEN_PATTERNS)
    u, v = np.meshgrid(np.arange(120, dtype=np.float32), np.arange(100, dtype=np.float32))
    for kind in PATTERNS:
        colour, level = random_texture(np.random.default_rng(0), (kind,), wavelength=(20, 20))(u, v)
        assert colour.shape == (100, 120, 3)
        assert 0 <= colour.min() <= colour.max() <= 1
        assert level.std() > 0.03


def test_noise_has_unit_variance_and_its_own_scale():
    values = np.array([smooth_noise(np.random.default_rng(s), 40, 60, cells=3, octaves=2) for s in range(400)])
    assert abs(values.mean()) < 0.1
    assert abs(values[:, 20, 30].std() - 1) < 0.15
    coarse, fine = (smooth_noise(np.random.default_rng(0), 128, 128, cells=c, octaves=1) for c in (4, 30))
    assert np.abs(np.diff(coarse)).mean() < 0.3 * np.abs(np.diff(fine)).mean()


def test_written_sets_hold_what_the_generator_draws(tmp_path):
    sets = SceneSets(
        out=str(tmp_path / "out"), seed=5, train=2, val=1, domain=2, shifts=["elastic", "overhead"], scene=SMALL
    )
    steps = []
    write_scene_sets(sets, progress=lambda *step: steps.append(step))
    assert steps[:3] == [("source", 1, 3), ("source", 2, 3), ("source", 3, 3)]
    assert steps[-1] == ("overhead", 2, 2)
    assert [r.id for r in CocoFolder(tmp_path / "out" / "source", split="val").records] == ["000002.png"]
    drawn = {
        "source": SceneDataset(3, seed=5, config=SMALL),
        "domains/elastic": SceneDataset(2, seed=6, config=SMALL, shift="elastic"),
        "domains/overhead": SceneDataset(2, seed=6, config=SMALL, shift="overhead"),
    }
    for folder, dataset in drawn.items():
        written = CocoFolder(tmp_path / "out" / folder)
        assert len(written) == len(dataset)
        assert all(equal(a, b) for a, b in zip(written, dataset, strict=True))
    with pytest.raises(RuacError, match="source: exists already"):
        write_scene_sets(sets)


def test_sets_refuse_unknown_shifts_and_empty_splits():
    with pytest.raises(RuacError, match="shifts: 'snow', expected some of"):
        load_config(SceneSets, overrides=["shifts=[fog,snow]"])
    with pytest.raises(RuacError, match="val: 0, expected at least 1"):
        load_config(SceneSets, overrides=["val=0"])


def test_tool_writes_sets_and_reports_errors_with_status_2(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "tools" / "make_scenes.py"))["main"]
    arguments = [f"out={tmp_path / 'o'}", "train=1", "val=1", "domain=1", "shifts=[fog]", "scene.side=64"]
    run_tool(main, arguments)
    assert "fog" in capsys.readouterr().out
    assert len(list((tmp_path / "o").rglob("annotations.json"))) == 2
    with pytest.raises(SystemExit) as stop:
        run_tool(main, arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "exists already" in error
