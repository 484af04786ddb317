"""ONNX Runtime beside eager torch on a CPU: time of encoder and decoder with all maps, and what int8 loses."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ruac.backbone.load import ROOT
from ruac.backbone.outputs import upsample
from ruac.backbone.prompts import Prompts, central_pixel
from ruac.base.errors import RuacError
from ruac.data.augment import normalise
from ruac.data.sample import Sample
from ruac.data.synthetic.scenes import SceneDataset
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.onnx_export import export_onnx, graph_image, quantise_onnx
from ruac.inference.onnx_graph import ANSWERS, FEATURES, PROMPTS
from ruac.studies.benchmark.rows import Row, fastest
from ruac.uncertainty import decompose
from ruac.uncertainty.maps import logit_uncertainty, probit_logit

MODEL = ROOT / "checkpoints" / "ruac_nano"
CALIBRATION = 32  # scenes on which ranges of int8 are seen; others are measured


def run(*, counts: Iterable[int], scenes: int, repeats: int) -> list[Row]:
    """Ratio: seconds to those of eager torch for the same work, all four masks and all maps of each object; in rows of
    masks, mean IoU with the truth to that of float32. counts: of objects."""
    model = load_exported(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        plain = export_onnx(model, Path(folder) / "float32")
        seen = SceneDataset(CALIBRATION, seed=1)
        small = quantise_onnx(plain, Path(folder) / "int8", (seen[n].image for n in range(CALIBRATION)))
        runtimes = {"float32": _sessions(plain), "int8": _sessions(small)}
        rows = _times(model, runtimes, list(counts), repeats)
        return rows + _masks(runtimes, SceneDataset(scenes, seed=0), model.image_size)


def _sessions(folder: Path) -> tuple[Any, Any]:
    try:
        import onnxruntime as ort
    except ImportError:
        raise RuacError("benchmark onnx: needs onnxruntime; pip install 'ruac[onnx]'") from None
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return tuple(ort.InferenceSession(str(folder / f"{name}.onnx"), options) for name in ("encoder", "decoder"))


def _times(model: UncertainSam, runtimes: dict, counts: list[int], repeats: int) -> list[Row]:
    side = model.image_size
    image = graph_image(SceneDataset(1, seed=0)[0].image, side)
    normalised = normalise(torch.from_numpy(image))
    rows = _compared(
        f"nano, {side} px: encode",
        {"eager": torch.no_grad()(lambda: model.encode(normalised))}
        | {
            name: lambda encoder=encoder: encoder.run(None, {"image": image}) for name, (encoder, _) in runtimes.items()
        },
        repeats,
        target="",
    )
    with torch.no_grad():
        features = model.encode(normalised)
    given = dict(zip(FEATURES, (x.numpy() for x in (features.embedding, *features.high_res)), strict=True))
    for count in counts:
        points = side * torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(0))
        prompts = Prompts(points, torch.ones(count, 1, dtype=torch.int64))
        feed = given | _feed(points.numpy(), side)
        works = {"eager": lambda prompts=prompts, count=count: _all_maps(model, features.expand(count), prompts)}
        for name, (_, decoder) in runtimes.items():
            works[name] = lambda decoder=decoder, feed=feed: decoder.run(None, feed)
        wanted, found = works["eager"](), works["float32"]()
        worst = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, wanted, strict=True))
        title = f"nano, {side} px, {count} objects: decode with all maps"
        rows += _compared(title, works, repeats, target="<= 1.0", note=f"largest difference {worst:.1g}")
    return rows


def _compared(title: str, works: dict, repeats: int, *, target: str, note: str = "") -> list[Row]:
    seconds = fastest(works, repeats=repeats)
    return [
        Row(
            f"{title}, {name if name == 'eager' else f'ONNX Runtime {name}'}",
            value,
            value / seconds["eager"],
            target if name == "float32" else "",
            note if name == "float32" else "",
        )
        for name, value in seconds.items()
    ]


@torch.no_grad()
def _all_maps(model: UncertainSam, features: Any, prompts: Prompts) -> tuple[torch.Tensor, ...]:
    """`ANSWERS`, by the package's own functions."""
    prediction = model.decode(features, prompts)
    mean, variance = prediction.posterior.calibrated()
    logit = probit_logit(mean, variance)
    answer = (prediction.logits, prediction.iou, prediction.decoded.object_score)
    return *answer, torch.sigmoid(logit), logit_uncertainty(logit), *decompose(mean, variance)


def _feed(points: np.ndarray, side: int) -> dict[str, np.ndarray]:
    count = len(points)
    empty = np.zeros((count, 1, side // 4, side // 4), np.float32)
    labels = np.ones((count, points.shape[1]), np.int64)
    return dict(zip(PROMPTS, (points.astype(np.float32), labels, empty, np.zeros(count, np.float32)), strict=True))


def _masks(runtimes: dict, scenes: SceneDataset, side: int) -> list[Row]:
    """One central click per object, the candidate of the best score, at the picture's size."""
    found = {name: [] for name in runtimes}
    agreement, doubt = [], []
    for number in range(len(scenes)):
        sample = scenes[number]
        answers = {name: _answer(*sessions, sample, side) for name, sessions in runtimes.items()}
        for name, (masks, _) in answers.items():
            found[name] += _ious(masks, sample.masks)
        agreement += _ious(answers["int8"][0], answers["float32"][0])
        doubt.append(np.abs(answers["int8"][1] - answers["float32"][1]).mean())
    j = {name: float(np.mean(values)) for name, values in found.items()}
    objects = len(agreement)
    note = f"IoU with float32's masks {np.mean(agreement):.3f}, mean change of uncertainty {np.mean(doubt):.3f}"
    return [
        Row(f"masks, float32, {objects} objects of {len(scenes)} scenes", 0.0, 1.0, "", f"J {j['float32']:.3f}"),
        Row("masks, int8", 0.0, j["int8"] / j["float32"], "", f"J {j['int8']:.3f}; {note}"),
    ]


def _answer(encoder: Any, decoder: Any, sample: Sample, side: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = sample.image.shape[:2]
    clicks = np.array([[central_pixel(mask)] for mask in sample.masks], np.float32) * (side / width, side / height)
    features = dict(zip(FEATURES, encoder.run(None, {"image": graph_image(sample.image, side)}), strict=True))
    answer = dict(zip(ANSWERS, decoder.run(list(ANSWERS), features | _feed(clicks, side)), strict=True))
    best = 1 + answer["scores"][:, 1:].argmax(1)
    rows = np.arange(len(best))
    logits = upsample(torch.from_numpy(answer["masks"][rows, best][:, None]), (height, width))[:, 0]
    return (logits > 0).numpy(), answer["uncertainty"][rows, best]


def _ious(masks: np.ndarray, others: np.ndarray) -> list[float]:
    union = (masks | others).sum((1, 2))
    return list(np.where(union > 0, (masks & others).sum((1, 2)) / np.maximum(union, 1), 1.0))
