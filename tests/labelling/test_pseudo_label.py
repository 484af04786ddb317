"""Pseudo-labels: what is read, what is asked, how objects become classes, what is kept and counted, what is refused."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.conformal.pixel_scores import fit_pixel_thresholds, pixel_scores
from ruac.conformal.pixel_sets import kept_labels, prediction_sets
from ruac.conformal.regions import RegionsConfig
from ruac.data.classes import IGNORE, ClassFolder
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.labelling.class_maps import class_probability
from ruac.labelling.prompts import ClassPrompt, annotated_prompts, read_prompts
from ruac.labelling.run import PseudoLabelConfig, run_pseudo_label
from ruac.labelling.statistics import LabelStatistics

NAMES = ["background", "round", "square"]


@pytest.fixture(autouse=True)
def fresh():
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def classed(coco_folder, tmp_path_factory):
    """The tiny data set with a label on every object, both classes on every picture."""
    root = tmp_path_factory.mktemp("classes") / "data"
    shutil.copytree(coco_folder, root)
    content = json.loads((root / "annotations.json").read_text())
    for place, annotation in enumerate(content["annotations"]):
        first = [a["image_id"] for a in content["annotations"]].index(annotation["image_id"])
        annotation["label"] = NAMES[1 + (place - first) % 2]
    (root / "annotations.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="session")
def maps(classed, tmp_path_factory):
    """The same pictures as a folder of label maps; the last has none."""
    root, data = tmp_path_factory.mktemp("maps"), ClassFolder(classed)
    shutil.copytree(classed / "images", root / "images")
    (root / "labels").mkdir()
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    for place in range(len(data) - 1):
        Image.fromarray(data[place].labels).save(root / "labels" / f"{place}.png")
    return root


def test_a_pixel_of_several_objects_belongs_to_the_smallest(classed):
    data = ClassFolder(classed)
    assert data.names == NAMES
    for sample in (data[place] for place in range(len(data))):
        area = sample.objects.sum(axis=(1, 2))
        for y, x in np.ndindex(sample.labels.shape):
            own = np.flatnonzero(sample.objects[:, y, x])
            assert sample.labels[y, x] == (sample.classes[own[area[own].argmin()]] if len(own) else 0)
    sample = ClassFolder(classed, background=False)[0]
    assert (sample.labels == IGNORE).sum() == (~sample.objects.any(0)).sum()
    assert set(np.unique(sample.labels)) == {0, 1, IGNORE}


def test_label_maps_are_the_same_pictures(classed, maps):
    coco, data = ClassFolder(classed), ClassFolder(maps)
    assert (data.names, data.files) == (coco.names, coco.files)
    for place in range(7):
        sample = data[place]
        assert (sample.labels == coco[place].labels).all()
        for mask, kind in zip(sample.objects, sample.classes, strict=True):
            assert (sample.labels[mask] == kind).all()
    assert data[7].labels is None
    assert not len(data[7].objects)


def test_prompts_of_annotated_objects_lie_on_them(classed):
    sample = ClassFolder(classed)[1]
    for prompt, mask, kind in zip(annotated_prompts(sample, "boxes"), sample.objects, sample.classes, strict=True):
        x0, y0, x1, y1 = prompt.box.astype(int)
        assert prompt.kind == kind
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0].any()
        assert mask[:, x1 - 1].any()
    for prompt, mask in zip(annotated_prompts(sample, "points"), sample.objects, strict=True):
        x, y = prompt.points[0].astype(int)
        assert mask[y, x]


class Scripted:
    """A predictor that answers the k-th prompt with the k-th map and score."""

    def __init__(self, maps, scores):
        self.answers = [
            SimpleNamespace(probability=m[None], scores=np.array([s])) for m, s in zip(maps, scores, strict=True)
        ]

    def set_image(self, image):
        self.image = image

    def predict(self, **_):
        return self.answers.pop(0)


@pytest.mark.parametrize("weigh", [False, True])
def test_a_class_is_as_probable_as_the_most_probable_of_its_objects(weigh):
    rng = np.random.default_rng(0)
    own, scores = rng.random((3, 4, 5)).astype(np.float32), np.array([0.9, 0.4, 1.2])
    prompts = [ClassPrompt(k, box=np.array([0, 0, 2, 2])) for k in (1, 2, 1)]
    picture = np.zeros((4, 5, 3), np.uint8)
    found = class_probability(Scripted(own, scores), picture, prompts, 4, background=True, weigh=weigh)
    weights = scores.clip(0, 1) if weigh else np.ones(3)
    weighed = own * weights[:, None, None]
    assert found[1] == pytest.approx(np.maximum(weighed[0], weighed[2]))
    assert found[2] == pytest.approx(weighed[1])
    assert (found[3] == 0).all()
    assert found[0] == pytest.approx(1 - weighed.max(0))
    nothing = class_probability(Scripted([], []), picture, [], 2, background=True, weigh=weigh)
    assert (nothing[0] == 1).all()


def test_statistics_count_pixels():
    rng = np.random.default_rng(1)
    statistics = LabelStatistics(NAMES)
    kept, plain, truth, inside = ([] for _ in range(4))
    for number in range(3):
        plain.append(rng.integers(0, 3, (6, 7)).astype(np.uint8))
        kept.append(np.where(rng.random((6, 7)) < 0.6, plain[-1], IGNORE).astype(np.uint8))
        inside.append(rng.random((3, 6, 7)) < 0.5)
        truth.append(rng.choice([0, 1, 2, IGNORE], (6, 7)).astype(np.uint8))
        statistics.add(plain[-1], kept[-1], inside[-1], truth[-1] if number else None)
    truth[0][:] = IGNORE
    plain, kept, truth, inside = np.stack(plain), np.stack(kept), np.stack(truth), np.stack(inside, axis=1)
    table = statistics.table().set_index("class")
    known = truth != IGNORE
    for k, name in enumerate(NAMES):
        row = table.loc[name]
        assert (row.pixels, row.kept, row.true_pixels) == ((plain == k).sum(), (kept == k).sum(), (truth == k).sum())
        assert row.kept_share == pytest.approx((kept == k).sum() / (plain == k).sum())
        assert row.precision == pytest.approx((truth == k)[known & (kept == k)].mean())
        assert row.precision_before == pytest.approx((truth == k)[known & (plain == k)].mean())
        assert row.recall == pytest.approx((kept == k)[truth == k].mean())
    row = table.loc["all"]
    assert row.kept_share == pytest.approx((kept != IGNORE).mean())
    assert row.precision == pytest.approx((kept == truth)[known & (kept != IGNORE)].mean())
    assert row.set_size == pytest.approx(inside.sum(0).mean())
    held = [inside[truth[place], place[0], place[1], place[2]] for place in zip(*np.nonzero(known), strict=True)]
    assert row.coverage == pytest.approx(np.mean(held))


def config(classed, shelf, out, **values):
    backbone = str(shelf / "backbone.yaml")
    made = {"source": str(classed), "backbone": backbone, "alpha": 0.2, "labelled": "train", "grid": 12, "cpu": True}
    return PseudoLabelConfig(**(made | {"out": str(out)} | values))


@pytest.mark.parametrize("kind", ["image", "location"])
def test_labels_are_those_of_the_calibrated_sets(classed, shelf, nano, tmp_path, kind):
    asked = config(classed, shelf, tmp_path, regions=RegionsConfig(kind), overlays=1)
    assert run_pseudo_label(asked) == tmp_path
    data, predictor = ClassFolder(classed), Predictor(UncertainSam(nano, None), device="cpu")

    def maps(sample):
        prompts = annotated_prompts(sample, "boxes")
        return class_probability(predictor, sample.image, prompts, 3, background=True, weigh=False)

    scores, labels = [], []
    for sample in (data[place] for place in range(6)):
        height, width = sample.labels.shape
        cells = np.ix_(*([int((k + 0.5) * n / 12) for k in range(12)] for n in (height, width)))
        labels.append(sample.labels[cells])
        scores.append(pixel_scores(maps(sample)[:, cells[0], cells[1]], labels[-1], NAMES))
    found = fit_pixel_thresholds(np.stack(scores), np.stack(labels), NAMES, 0.2, RegionsConfig(kind))
    statistics = LabelStatistics(NAMES)
    for place in (6, 7):
        sample = data[place]
        assert (data.labels(place) == sample.labels).all()
        assert (data.image(place) == sample.image).all()
        expected = kept_labels(maps(sample), found, filter="class_conditional", background=True)
        written = np.asarray(Image.open(tmp_path / "labels" / f"{place}.png"))
        assert (written == expected).all()
        plain = maps(sample).argmax(0).astype(np.uint8)
        statistics.add(plain, expected, prediction_sets(maps(sample), found), sample.labels)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "statistics.csv"), statistics.table())
    assert [p.name for p in (tmp_path / "overlays").iterdir()] == ["6.png"]
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["labelled"] == data.files[:6]
    assert record["thresholds"]["regions"] == (1 if kind == "image" else 144)
    assert (tmp_path / "classes.txt").read_text().split() == NAMES


def test_a_list_of_prompts_by_class(classed, maps, shelf, tmp_path):
    """The same boxes from a file give the same labels, and pictures without truth are labelled too."""
    data = ClassFolder(classed)
    listed = {}
    for place, name in enumerate(data.files):
        own = annotated_prompts(data[place], "boxes")
        listed[name] = [{"class": data.names[p.kind], "box": p.box.tolist()} for p in own]
    (tmp_path / "prompts.json").write_text(json.dumps(listed))
    runs = {}
    for name, source, prompts in (
        ("annotated", classed, "boxes"),
        ("listed", classed, tmp_path / "prompts.json"),
        ("maps", maps, tmp_path / "prompts.json"),
    ):
        (source / "most.txt").write_text("".join(f"{n}.png\n" for n in range(6)))
        out = tmp_path / name
        run_pseudo_label(config(source, shelf, out, labelled="most", prompts=str(prompts)))
        runs[name] = [np.asarray(Image.open(out / "labels" / f"{n}.png")) for n in (6, 7)]
    for own in runs.values():
        assert all((a == b).all() for a, b in zip(own, runs["annotated"], strict=True))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"class": "dog", "box": [0, 0, 5, 5]}, r"'0.png'\[0\]: class 'dog', expected one of: round, square"),
        ({"class": "background", "box": [0, 0, 5, 5]}, "class 'background'"),
        ({"class": "round"}, "either a box or points"),
        ({"class": "round", "box": [5, 0, 5, 5]}, "x0 < x1"),
        ({"class": "round", "box": [0, 0, 65, 5]}, "outside the 64x48 picture"),
        ({"class": "round", "points": [[3, -1]]}, "outside the 64x48 picture"),
        ({"class": "round", "points": [3, 1]}, "list of"),
        ({"class": "round", "points": "abc"}, "expected numbers"),
    ],
)
def test_bad_prompts_name_their_place(classed, tmp_path, entry, message):
    (tmp_path / "p.json").write_text(json.dumps({"0.png": [entry]}))
    with pytest.raises(RuacError, match=message):
        read_prompts(tmp_path / "p.json", ClassFolder(classed))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["alpha=0.05"], "labelled subset: 6 images, but alpha=0.05 needs at least 19"),
        (["alpha=1"], "alpha: 1.0, expected"),
        (["filter=some"], "filter: 'some', expected class_conditional or marginal or half or none"),
        (["regions.kind=rings"], "regions.kind: 'rings'"),
        (["prompts=boxs"], "prompts: boxs not found; expected boxes, points or a JSON file"),
        (["labelled=missing"], "missing.txt: split list not found"),
        (["labelled=null", "fraction=1"], "fraction"),
        (["labelled=all"], "every picture is in the labelled subset"),
        (["regions.knd=image"], "knd"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(classed, shelf, tmp_path, capsys, values, message):
    (classed / "all.txt").write_text("".join(f"{n}.png\n" for n in range(8)))
    out = tmp_path / "out"
    model = f"backbone={shelf / 'backbone.yaml'}"
    base = [f"source={classed}", model, "labelled=train", "alpha=0.2", "grid=1", "cpu=true"]
    with pytest.raises(SystemExit) as stopped:
        main(["pseudo-label", *base, f"out={out}", *values])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not out.exists()


def test_a_class_that_is_on_no_labelled_picture(classed, shelf, tmp_path):
    shutil.copytree(classed, tmp_path / "data")
    content = json.loads((classed / "annotations.json").read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] < 6:
            annotation["label"] = "round"
    (tmp_path / "data" / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(RuacError, match="class 'square' is on none of its 6 pictures"):
        run_pseudo_label(config(tmp_path / "data", shelf, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_that_stops_leaves_nothing_and_one_that_is_there_stays(classed, shelf, tmp_path, monkeypatch):
    asked = config(classed, shelf, tmp_path / "out")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ruac.labelling.run.prediction_sets", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_pseudo_label(asked)
    assert not list(tmp_path.iterdir())
    run_pseudo_label(asked)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(RuacError, match="out: already holds labels; expected another out="):
        run_pseudo_label(config(classed, shelf, tmp_path / "out", alpha=0.3))
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


def test_the_sources_own_labels_are_not_written_over(maps, shelf, tmp_path):
    root = tmp_path / "maps"
    shutil.copytree(maps, root)
    (root / "few.txt").write_text("".join(f"{n}.png\n" for n in range(6)))
    with pytest.raises(RuacError, match="maps: already holds labels"):
        run_pseudo_label(config(root, shelf, root, labelled="few"))
    assert (root / "labels" / "6.png").read_bytes() == (maps / "labels" / "6.png").read_bytes()


def test_a_broken_map_among_pictures_to_label_is_said_before_the_model_is_asked(maps, tmp_path):
    root = tmp_path / "maps"
    shutil.copytree(maps, root)
    (root / "few.txt").write_text("".join(f"{n}.png\n" for n in range(6)))
    Image.fromarray(np.full((48, 64), 9, np.uint8)).save(root / "labels" / "6.png")
    asked = PseudoLabelConfig(str(root), backbone="none", labelled="few", alpha=0.2, out=str(tmp_path / "out"))
    with pytest.raises(RuacError, match=r"6\.png: found label 9, expected 0 to 2 or 255"):
        run_pseudo_label(asked)
    (root / "labels" / "6.png").unlink()
    (root / "labels" / "3.png").unlink()
    with pytest.raises(RuacError, match=r"3\.png: has no labels, but is in the labelled subset"):
        run_pseudo_label(asked)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_none(coco_folder, maps, tmp_path):
    with pytest.raises(RuacError, match="1 classes"):
        ClassFolder(coco_folder, background=False)
    with pytest.raises(RuacError, match=r"expected annotations.json, or labels/ and classes.txt"):
        ClassFolder(tmp_path)
    shutil.copytree(maps, tmp_path / "maps")
    wrong = np.zeros((48, 64), np.uint8)
    wrong[3, 3] = 9
    Image.fromarray(wrong).save(tmp_path / "maps" / "labels" / "0.png")
    with pytest.raises(RuacError, match=r"0.png: found label 9, expected 0 to 2 or 255"):
        ClassFolder(tmp_path / "maps")[0]
    (tmp_path / "maps" / "classes.txt").unlink()
    with pytest.raises(RuacError, match=r"classes.txt"):
        ClassFolder(tmp_path / "maps")
