"""The graphs say what the package says: in torch, in ONNX Runtime, for any number of objects and clicks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import with_head
from PIL import Image

from ruac.backbone import BackboneConfig, build_backbone
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError
from ruac.calibration.clustered import Clustered
from ruac.calibration.temperature import Temperature
from ruac.data.augment import normalise
from ruac.inference.answer import answer_maps
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.onnx_export import export_onnx, exported_programs, graph_image, quantise_onnx, read_onnx
from ruac.inference.onnx_graph import ANSWERS, FEATURES, PROMPTS, DecoderGraph, EncoderGraph, check_exportable
from ruac.inference.predictor import Predictor
from ruac.uncertainty import BayesianConfig, head_config

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "checkpoints" / "ruac_nano"
IMAGE = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
KINDS = {
    "none": None,
    "signed": BayesianConfig(logit_scale=True),
    "local": BayesianConfig(local_temperature=True),
    "nonnegative": head_config("nonnegative", kappa="pixel"),
}


def prompts_of(count, clicks, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = side * torch.rand(count, clicks, 2, generator=generator)
    labels = torch.randint(-1, 2, (count, clicks), generator=generator)
    shown = 4 * torch.randn(count, 1, side // 4, side // 4, generator=generator)
    return points, labels, shown, torch.arange(count).float() % 2


@torch.no_grad()
def expected(model, image, prompts):
    """`ANSWERS` by the package's own path, one object at a time, so that each has a mask to see or has none."""
    features, found = model.encode(image), []
    for n in range(len(prompts[0])):
        points, labels, shown, has = (x[n : n + 1] for x in prompts)
        prediction = model.decode(features, Prompts(points, labels, shown if has else None))
        size = prediction.logits.shape[-2:]
        maps = answer_maps(prediction, torch.arange(4)[None], size, parts=True)
        parts = maps.parts or {"aleatoric": maps.total, "epistemic": torch.zeros_like(maps.total)}
        score = prediction.decoded.object_score
        found.append((prediction.logits, prediction.iou, score, maps.probability, maps.total, *parts.values()))
    return [torch.cat(column) for column in zip(*found, strict=True)]


def check(found, wanted, atol):
    for name, one, other in zip(ANSWERS, found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(one), other.numpy(), atol=atol, rtol=0, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_in_torch_is_the_model(nano, kind):
    config = KINDS[kind]
    model = UncertainSam(nano, None).eval() if config is None else with_head(nano, config, noise=0.05)
    if kind == "signed":
        model.calibrator = Temperature(temperature=1.7)
    image = torch.from_numpy(graph_image(IMAGE, 64))
    prompts = prompts_of(3, 2, 64)
    with torch.no_grad():
        features = EncoderGraph(model)(image)
        found = DecoderGraph(model)(*features, *prompts)
    predictor = Predictor(model, device="cpu")
    predictor.set_image(IMAGE)
    torch.testing.assert_close(features[0], predictor.picture_features.embedding, atol=1e-5, rtol=0)
    check(found, expected(model, normalise(image), prompts), atol=1e-4)


def test_what_has_no_graph_is_refused(nano):
    for model, message in (
        (UncertainSam(nano, Ensemble(EnsembleConfig(jitters=1))), "without ensemble"),
        (UncertainSam(nano, None).looking(["zoom"]), "ensemble, looks and filters"),
        (with_head(nano, head_config("dropout")), "head dropout: has no graph"),
        (UncertainSam(nano, None, calibrator=Clustered()), "calibrator clustered: reads feature"),
    ):
        with pytest.raises(RuacError, match=message):
            check_exportable(model)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(RuacError, match="expected a folder written by ruac export-onnx"):
        read_onnx(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nonnegative", "none"])
def test_programs_take_any_number_of_objects_and_points(nano, kind):
    config = KINDS[kind]
    model = UncertainSam(nano, None).eval() if config is None else with_head(nano, config, noise=0.05)
    model.calibrator = Temperature(temperature=1.7)
    image = torch.from_numpy(graph_image(IMAGE, 64))
    encoder, decoder = (program.module() for program in exported_programs(model))
    for count, clicks in ((1, 1), (5, 4)):
        prompts = prompts_of(count, clicks, 64)
        check(
            [x.detach() for x in decoder(*encoder(image), *prompts)], expected(model, normalise(image), prompts), 1e-4
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The embedded model, converted once."""
    pytest.importorskip("onnxscript", reason="an extra")
    return export_onnx(load_exported(MODEL), tmp_path_factory.mktemp("onnx") / "out")


def sessions(folder):
    ort = pytest.importorskip("onnxruntime", reason="an extra")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return [ort.InferenceSession(str(folder / f"{name}.onnx"), options) for name in ("encoder", "decoder")]


@pytest.mark.slow
def test_onnx_runtime_says_the_same(folder):
    model = load_exported(MODEL)
    encoder, decoder = sessions(folder)
    image = graph_image(IMAGE, 256)
    features = dict(zip(FEATURES, encoder.run(None, {"image": image}), strict=True))
    for count, clicks in ((1, 1), (2, 3), (7, 5)):
        prompts = prompts_of(count, clicks, 256, seed=count)
        given = dict(zip(PROMPTS, (x.numpy() for x in prompts), strict=True))
        found = decoder.run(list(ANSWERS), features | given)
        check(found, expected(model, normalise(torch.from_numpy(image)), prompts), atol=1e-4)
    said = json.loads((folder / "onnx.json").read_text())
    assert (said["image_size"], said["head"], said["backbone"]) == (256, "signed", "nano")


@pytest.mark.slow
def test_an_official_architecture_in_onnx_runtime(tmp_path):
    """Of random weights: windowed attention and position embeddings of another size than `nano` has."""
    pytest.importorskip("onnxscript", reason="an extra")
    body = build_backbone(BackboneConfig(kind="tiny", image_size=128)).freeze()
    model = with_head(body, KINDS["local"], noise=0.05)
    encoder, decoder = sessions(export_onnx(model, tmp_path / "tiny"))
    image = graph_image(IMAGE, 128)
    features = dict(zip(FEATURES, encoder.run(None, {"image": image}), strict=True))
    for count, clicks in ((1, 2), (3, 1)):
        prompts = prompts_of(count, clicks, 128, seed=count)
        found = decoder.run(list(ANSWERS), features | dict(zip(PROMPTS, (x.numpy() for x in prompts), strict=True)))
        check(found, expected(model, normalise(torch.from_numpy(image)), prompts), atol=1e-4)


@pytest.mark.slow
def test_the_example_needs_no_torch(folder, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    code = f"""
import runpy, sys
for closed in ("torch", "ruac", "sam2"):
    sys.modules[closed] = None
sys.argv = ["", {str(folder)!r}, {str(tmp_path / "photo.png")!r}, "120", "80", "mask.png", "uncertainty.png"]
runpy.run_path({str(ROOT / "examples" / "onnx_predict.py")!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    predictor = Predictor(MODEL, device="cpu")
    predictor.set_image(IMAGE)
    answer = predictor.predict([[120, 80]], [1])
    assert f"predicted IoU {answer.scores[0]:.3f}" in done.stdout
    mask, doubt = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("mask", "uncertainty"))
    assert ((mask > 0) != answer.masks[0]).mean() < 1e-4
    # The package upsamples logits and takes their entropy, the example upsamples the entropy.
    assert np.abs(doubt / 65535 - answer.uncertainty[0]).mean() < 0.02


@pytest.mark.slow
def test_int8_is_close_and_smaller(folder, tmp_path):
    with pytest.raises(RuacError, match="no pictures"):
        quantise_onnx(folder, tmp_path / "none", [])
    out = quantise_onnx(folder, tmp_path / "int8", [np.roll(IMAGE, n, 0) for n in range(4)])
    assert read_onnx(out)["quantised"]
    for name in ("encoder", "decoder"):
        assert (out / f"{name}.onnx").stat().st_size < 0.6 * (folder / f"{name}.onnx").stat().st_size
    prompts = dict(zip(PROMPTS, (x.numpy() for x in prompts_of(2, 1, 256)), strict=True))
    answers = []
    for place in (folder, out):
        encoder, decoder = sessions(place)
        features = dict(zip(FEATURES, encoder.run(None, {"image": graph_image(IMAGE, 256)}), strict=True))
        answers.append(decoder.run(["masks", "uncertainty"], features | prompts))
    assert ((answers[0][0] > 0) == (answers[1][0] > 0)).mean() > 0.9
    (out / "decoder.onnx").write_bytes(b"")
    with pytest.raises(RuacError, match=r"decoder\.onnx: missing, damaged"):
        read_onnx(out)
