"""Files beside a model and its answers: prompts, reliability, bounds, temperatures, exports, embeddings, queues."""

import json
import shutil
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import rle_of, save_backbone, with_head
from fuzzing import EXAMPLES, damaged, fuzzed, json_bytes, nearly, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ruac.base.errors import RuacError
from ruac.calibration import load_calibrator
from ruac.calibration.registry import KINDS, build_calibrator
from ruac.conformal.bounds import BoundsConfig, fit_bounds, load_bounds
from ruac.conformal.mask_losses import INNER, OUTER
from ruac.data.classes import ClassFolder
from ruac.inference.embeddings import load_embeddings
from ruac.inference.export import CONFIG, WEIGHTS, export_model, load_exported
from ruac.inference.prompts_file import read_prompts
from ruac.inference.reliability import load_reliability, mask_features
from ruac.inference.review.queue import read_queue
from ruac.inference.temperature_file import backbone_identity, read_temperature
from ruac.labelling.prompts import read_prompts as read_class_prompts

pytestmark = pytest.mark.filterwarnings("ignore")

PROMPTS = {
    "a.png": [{"box": [1, 2, 3.5, 4]}, {"points": [[5, 6], [7, 8]], "labels": [1, 0], "class": "cat"}],
    "sub/b.png": [{"points": [[1, 1]]}],
}
BOXES = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "sub/b.png"}],
    "annotations": [{"image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 1, "name": "cat"}],
}
IDENTITY = {"sha256": "0" * 64, "image_size": 64}
READER = {"weights": {"predicted_iou": 1.0, "agreement": 0.5}, "bias": 0.1, "threshold": [0.2, 0.5], "risk": [0.3, 0.1]}
RELIABILITY = {"format": 1, "readers": {"": READER}, "identity": IDENTITY, "record": {}}
MASK = np.zeros((6, 8), bool)
MASK[2:4, 3:6] = True
OBJECT = {"id": 1, "class": "cat", "reliability": 0.5, "score": 0.5, "expected_iou": 0.5, "mean_uncertainty": None}
ANSWER = {
    "format": 1,
    "picture": {"file": "a.png", "sha256": "00"},
    "size": [6, 8],
    "files": {"mask": "a.png.mask.png", "uncertainty": "a.png.uncertainty.png"},
    "uncertainty_one": 65535,
    "objects": [OBJECT | {"segmentation": rle_of(MASK)}],
}
INDEX = {
    "format": 1,
    "pictures": [{"file": "a.png", "sha256": "00", "answer": "a.png.json"}],
    "failed": [{"file": "b.png", "reason": "x"}],
    "without_prompt": ["c.png"],
}


@pytest.fixture
def path(tmp_path_factory):
    return tmp_path_factory.getbasetemp() / "fuzzed.json"


@fuzzed
@given(content=st.one_of(json_bytes(PROMPTS), json_bytes(BOXES)))
def test_fuzz_prompts(path, content):
    path.write_bytes(content)
    found = survives(read_prompts, path, PROMPTS, names=path)
    for prompt in (prompt for prompts in (found or {}).values() for prompt in prompts):
        survives(prompt.check_inside, (6, 8))


@fuzzed
@given(
    content=json_bytes({"0.png": [{"class": "object", "box": [1, 2, 9, 9]}, {"class": "object", "points": [[1, 2]]}]})
)
def test_fuzz_class_prompts(path, coco_folder, content):
    path.write_bytes(content)
    dataset = SimpleNamespace(
        files=["0.png"],
        names=["object"],
        background=False,
        root=coco_folder,
        path=lambda _: coco_folder / "images/0.png",
    )
    survives(read_class_prompts, path, dataset, names=path)


@fuzzed
@given(content=json_bytes(RELIABILITY))
def test_fuzz_reliability(path, content):
    path.write_bytes(content)
    found = survives(load_reliability, path, IDENTITY, names=path)
    reader = found and found.reader([])
    if reader is not None:
        features = mask_features(MASK, MASK.astype(float), np.float64(0.5), MASK)
        assert np.isfinite(reader.read(features)).all()
        survives(reader.threshold_for, 0.2)


def test_fuzz_bounds(path, tmp_path):
    rng = np.random.default_rng(0)
    losses = [np.sort(rng.random((40, len(grid))))[:, ::-1] for grid in (OUTER, INNER)]
    whole = fit_bounds(*losses, BoundsConfig(), identity={}, record={}).save(tmp_path / "whole.json", alpha=0.3)
    content = json.loads(whole.read_text())

    @fuzzed
    @given(content=json_bytes(content))
    def check(content):
        path.write_bytes(content)
        found = survives(load_bounds, path, names=path)
        if found is not None:
            survives(found.at, 0.3)

    check()


@fuzzed
@given(data=st.data())
def test_fuzz_temperature(path, nano, data):
    content = {"temperature": 2.0, "backbone": backbone_identity(nano)}
    path.write_bytes(data.draw(json_bytes(content)))
    survives(read_temperature, path, nano, names=path)


@fuzzed
@given(answer=json_bytes(ANSWER), index=st.one_of(st.just(json.dumps(INDEX).encode()), json_bytes(INDEX)))
def test_fuzz_queue(tmp_path_factory, answer, index):
    folder = tmp_path_factory.getbasetemp() / "queue"
    folder.mkdir(exist_ok=True)
    (folder / "predictions.json").write_bytes(index)
    (folder / "a.png.json").write_bytes(answer)
    found = survives(read_queue, folder, names=folder)
    if found is not None:
        assert all(isinstance(name, str) for name in [*found.kinds, *found.safe, *found.unanswered])
    for picture in found.pictures if found else []:
        assert 0 <= picture.risk <= 1
        for each in picture.objects:
            assert each.mask.shape == picture.size


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("predictions.json", {"without_prompt": [[]]}),
        ("predictions.json", {"failed": [{"file": None}]}),
        ("a.png.json", {"objects": [OBJECT | {"class": None, "segmentation": rle_of(MASK)}]}),
        ("a.png.json", {"objects": [OBJECT | {"id": [], "segmentation": rle_of(MASK)}]}),
    ],
)
def test_a_queue_with_what_is_no_name_is_refused(tmp_path, file, change):
    contents = {"predictions.json": INDEX, "a.png.json": ANSWER}
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content | (change if name == file else {})))
    with pytest.raises(RuacError, match=file.replace(".", r"\.")):
        read_queue(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_fuzz_calibrators(tmp_path, kind):
    whole = build_calibrator(kind).save(tmp_path / "whole.safetensors").read_bytes()
    path = tmp_path / "fuzzed.safetensors"

    @fuzzed
    @given(content=damaged(whole))
    def check(content):
        path.write_bytes(content)
        survives(load_calibrator, path, names=path)

    check()


@pytest.fixture(scope="module")
def exported(make_nano, tmp_path_factory):
    nano = make_nano()
    folder = tmp_path_factory.mktemp("exported")
    return export_model(with_head(nano), save_backbone(nano, folder), folder / "export", with_backbone=False)


def test_fuzz_export(exported, nano, tmp_path):
    config, weights = json.loads((exported / CONFIG).read_text()), (exported / WEIGHTS).read_bytes()
    folder = shutil.copytree(exported, tmp_path / "fuzzed")

    @settings(fuzzed, max_examples=1 + EXAMPLES // 10)  # each reads a backbone
    @given(config=st.one_of(st.just(json.dumps(config).encode()), json_bytes(config)), weights=damaged(weights))
    def check(config, weights):
        (folder / CONFIG).write_bytes(config)
        (folder / WEIGHTS).write_bytes(weights)
        survives(load_exported, folder)

    check()


@pytest.mark.parametrize(
    ("key", "value"), [("hidden", 10**8), ("hidden", 2**62), ("kappa_max", 1e999), ("kappa_min", -1.0)]
)
def test_an_export_that_claims_a_huge_head_is_refused_before_it_is_built(exported, tmp_path, key, value):
    folder = shutil.copytree(exported, tmp_path / "huge")
    content = json.loads((folder / CONFIG).read_text())
    content["head"][key] = value
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(RuacError, match=key):
        load_exported(folder)


def test_fuzz_embeddings(path, tmp_path):
    about = {"sizes": [[6, 8]], "frames": [None], "backbone": IDENTITY}
    tensors = {"0.embedding": torch.zeros(1, 2, 4, 4), "0.high_res.0": torch.zeros(1, 2, 4, 4)}

    @fuzzed
    @given(about=nearly(about), cut=st.booleans(), data=st.data())
    def check(about, cut, data):
        save_file(tensors, path, metadata={"format": "1", "embeddings": json.dumps(about)})
        if cut:
            path.write_bytes(data.draw(damaged(path.read_bytes())))
        survives(load_embeddings, path, IDENTITY, torch.device("cpu"), names=path)

    check()


def test_what_is_made_nearly_right_is_right_at_first(path, tmp_path, coco_folder):
    for content in (PROMPTS, BOXES):
        path.write_text(json.dumps(content))
        assert read_prompts(path, PROMPTS)["a.png"]
    path.write_text(json.dumps(RELIABILITY))
    assert asdict(load_reliability(path, IDENTITY).reader([])) == READER
    (tmp_path / "predictions.json").write_text(json.dumps(INDEX))
    (tmp_path / "a.png.json").write_text(json.dumps(ANSWER))
    assert len(read_queue(tmp_path).pictures[0].objects) == 1
    assert ClassFolder(coco_folder).names == ["background", "object"]
