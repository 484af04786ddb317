"""Splits, the numbered stream, views: what is drawn, that labels follow their picture, what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.augment import MEAN, STD
from ruac.data.classes import IGNORE, ClassFolder
from ruac.training.student.split import Split, SplitConfig, check_truth, split_pictures
from ruac.training.student.stream import StudentStream, check_pseudo
from ruac.training.student.views import ViewsConfig, cutmix_box, strong_view, weak_view


@pytest.fixture
def data(classed):
    return ClassFolder(classed)


def stream_of(data, split, **settings):
    return StudentStream(data, split, ViewsConfig(), side=32, seed=4, **({"unlabelled": True} | settings))


def test_a_split_covers_all_pictures_once(data):
    split = split_pictures(data, SplitConfig(fraction=0.5, held_out=0.2))
    assert sorted(split.labelled + split.unlabelled + split.validation) == list(range(12))
    assert (len(split.validation), len(split.labelled)) == (2, 4)  # of the eleven with labels: 2, and half of 9
    assert 11 in split.unlabelled
    other = split_pictures(data, SplitConfig(fraction=0.5, held_out=0.2, seed=1))
    assert other.validation == split.validation
    assert other.labelled != split.labelled


def test_a_smaller_fraction_is_a_part_of_a_larger(data):
    for seed in range(4):
        small, large = (split_pictures(data, SplitConfig(fraction=f, seed=seed)).labelled for f in (0.25, 0.75))
        assert set(small) < set(large)


def test_lists_name_the_parts(data, tmp_path):
    for name, files in {"l": "00.png\n02\n", "v": "04.png\n"}.items():
        (tmp_path / f"{name}.txt").write_text(files)
    split = split_pictures(data, SplitConfig(labelled=str(tmp_path / "l.txt"), validation=str(tmp_path / "v.txt")))
    assert (split.labelled, split.validation) == ([0, 2], [4])
    assert split.unlabelled == [1, 3, *range(5, 12)]
    with pytest.raises(RuacError, match=r"00\.png is in two of labelled, unlabelled and validation"):
        split_pictures(data, SplitConfig(labelled=str(tmp_path / "l.txt"), unlabelled=str(tmp_path / "l.txt")))


def test_a_fraction_of_no_picture_says_what_is_needed(data):
    with pytest.raises(RuacError, match=r"split.fraction: 0.01 of 8 pictures is none; expected at least 0.125"):
        split_pictures(data, SplitConfig(fraction=0.01))


def test_a_picture_without_labels_cannot_be_labelled(data, tmp_path):
    (tmp_path / "l.txt").write_text("11.png\n")
    with pytest.raises(RuacError, match=r"11\.png: has no labels, but is in split.labelled"):
        split_pictures(data, SplitConfig(labelled=str(tmp_path / "l.txt")))


def test_a_class_that_no_labelled_picture_has_is_named(classed, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(classed, root)
    (root / "classes.txt").write_text("background\nround\nsquare\nnowhere\n")
    with pytest.raises(RuacError, match="class 'nowhere' is on none of its 2 pictures"):
        check_truth(ClassFolder(root), Split([0, 1], [], []))


def test_items_are_functions_of_their_number(data):
    split = split_pictures(data, SplitConfig(fraction=0.5))
    first, again = (stream_of(data, split, strong=2) for _ in range(2))
    again[3]
    for number in (0, 5, 10**9):
        one, other = first[number], again[number]
        assert set(one) == {"image", "labels", "weak", "pseudo", "strong1", "box1", "strong2", "box2"}
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(first[0]["strong1"], first[0]["strong2"])
    assert (first[0]["pseudo"] == IGNORE).all()


def test_every_picture_comes_once_a_round(data):
    split = split_pictures(data, SplitConfig(fraction=0.5))
    stream = stream_of(data, split)
    for places, kind in ((split.labelled, 0), (split.unlabelled, 1)):
        for rounds in range(3):
            numbers = range(rounds * len(places), (rounds + 1) * len(places))
            assert sorted(stream._place(places, n, kind) for n in numbers) == places


def test_labels_follow_the_picture(data):
    """Bright pixels are disk and dark ones square, wherever crop and mirror put them."""
    split = split_pictures(data, SplitConfig(fraction=0.5))
    seen = torch.zeros(3)
    for number in range(12):
        item = stream_of(data, split)[number]
        grey = (item["image"] * STD + MEAN).mean(0)
        for label, low, high in ((0, 0.35, 0.6), (1, 0.55, 0.75), (2, 0.1, 0.35)):
            values = grey[item["labels"] == label]
            seen[label] += len(values)
            if len(values) > 20:
                assert low < float(values.median()) < high
    assert (seen > 100).all()


def test_strong_views_stay_in_place_and_in_range():
    image = torch.rand(3, 32, 32)
    rng = np.random.default_rng(0)
    config = ViewsConfig(jitter=1.0, grayscale=0.0, blur=0.0)
    for _ in range(5):
        view = strong_view(image, config, rng)
        assert 0 <= float(view.min()) <= float(view.max()) <= 1
        assert abs(np.corrcoef(view.mean(0).flatten(), image.mean(0).flatten())[0, 1]) > 0.4
    still = strong_view(image, ViewsConfig(jitter=0.0, grayscale=0.0, blur=0.0), rng)
    assert torch.equal(still, image)
    grey = strong_view(image, ViewsConfig(jitter=0.0, grayscale=1.0, blur=0.0), rng)
    assert torch.allclose(grey[0], grey[1])


def test_boxes_have_the_size_of_cutmix():
    rng = np.random.default_rng(0)
    areas = [int(cutmix_box(64, ViewsConfig(), rng).sum()) / 64**2 for _ in range(400)]
    drawn = [area for area in areas if area]
    assert 150 < len(drawn) < 250
    assert min(drawn) > 0.01
    assert max(drawn) < 0.45


def test_ambiguous_pixels_are_ignored():
    labels = torch.full((20, 20), IGNORE, dtype=torch.uint8)
    labels[:, :10] = 1
    config = ViewsConfig()
    config.weak.crop, config.weak.flip = 1.0, False
    _, view = weak_view(torch.rand(3, 20, 20), labels, 3, 20, config, np.random.default_rng(0))
    assert (view[:, :10] == 1).all()
    assert (view[:, 10:] == IGNORE).all()


@pytest.fixture
def pseudo(data, classed, tmp_path):
    """A finished folder of pseudo-labels: the truth, calibrated on the labelled pictures."""
    split = split_pictures(data, SplitConfig(fraction=0.5))
    out = tmp_path / "pseudo"
    shutil.copytree(classed / "labels", out / "labels")
    shutil.copy(classed / "classes.txt", out / "classes.txt")
    Image.fromarray(np.ones((40, 48), np.uint8)).save(out / "labels" / "11.png")
    (out / "record.json").write_text(json.dumps({"labelled": [data.files[p] for p in split.labelled]}))
    return out, split


def test_pseudo_labels_come_with_their_picture(data, pseudo):
    folder, split = pseudo
    check_pseudo(folder, data, split)
    items = [stream_of(data, split, pseudo=folder / "labels")[n] for n in range(8)]
    assert {1, 2} <= set(torch.cat([item["pseudo"].unique() for item in items]).tolist())


def spoil_record(folder, data, split):
    (folder / "record.json").unlink()
    return "record.json: not found; expected the folder of a finished ruac pseudo-label"


def spoil_calibration(folder, data, split):
    (folder / "record.json").write_text(json.dumps({"labelled": [data.files[split.validation[0]]]}))
    return f"calibrated on {data.files[split.validation[0]]}, which is not in the labelled subset"


def spoil_classes(folder, data, split):
    (folder / "classes.txt").write_text("a\nb\n")
    return r"a, b; expected background, round, square"


def spoil_picture(folder, data, split):
    name = f"{data.files[split.unlabelled[0]].split('.')[0]}.png"
    (folder / "labels" / name).unlink()
    return f"{name}: not found; every unlabelled picture needs pseudo-labels"


@pytest.mark.parametrize("spoil", [spoil_record, spoil_calibration, spoil_classes, spoil_picture])
def test_unusable_pseudo_labels_are_refused(data, pseudo, spoil):
    folder, split = pseudo
    with pytest.raises(RuacError, match=spoil(folder, data, split)):
        check_pseudo(folder, data, split)


def test_pseudo_labels_outside_the_classes_are_refused(data, pseudo):
    folder, split = pseudo
    for path in (folder / "labels").glob("*.png"):
        Image.fromarray(np.full((40, 48), 3, np.uint8)).save(path)
    with pytest.raises(RuacError, match=r"png: found label 3, expected 0 to 2 or 255"):
        stream_of(data, split, pseudo=folder / "labels")[0]
