"""A sweep against its own encoder and decoder, which nothing around them should slow down."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from ruac.backbone import Backbone, Features
from ruac.backbone.outputs import as_prompt
from ruac.backbone.prompts import OBJECT, Prompts, central_pixel
from ruac.data.augment import prepare
from ruac.data.open import open_dataset
from ruac.data.write import write_coco
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, blocks, evaluate_image
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest

LEAST = {"tiny": 0.9, "nano": 0.85}
ALONE = ("encode", "decode", "decode in blocks")


def run(*, cases: Iterable[Case], repeats: int) -> list[Row]:
    """An image of a sweep with the head, read from disk, answered and scored; what it reaches of the speed of encoding
    and decoding alone. Ratio: seconds of the two, each alone, to those of the sweep; the target is set for decoding in
    the sweep's own blocks, which are fewer objects at a time where that is faster; all at once is shown beside it."""
    rows = []
    for case in cases:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # what ran before changes the allocator
            seconds = pool.submit(_measure, case, repeats).result()
        rows += [Row(f"{case}: {name} alone", seconds[name], seconds[name] / seconds["sweep"]) for name in ALONE]
        for decode in ALONE[1:]:
            target = f">= {LEAST[case.kind]}" if decode == ALONE[-1] and case.kind in LEAST else ""
            alone = seconds["encode"] + seconds[decode]
            rows.append(Row(f"{case}: sweep, to encode + {decode}", seconds["sweep"], alone / seconds["sweep"], target))
    return rows


def _measure(case: Case, repeats: int) -> dict[str, float]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_coco([case.sample()], Path(folder) / "data")
        return fastest(_works(case, Path(folder) / "data"), repeats=repeats)


def _works(case: Case, folder: Path) -> dict[str, Callable[[], None]]:
    model, protocol, scores = case.model(), ProtocolConfig(), Scores()
    dataset = open_dataset(folder)
    images = prepare(dataset[0].image, case.side)
    features = model.backbone.encode(images)
    clicks = np.array([central_pixel(mask) for mask in dataset[0].masks])

    def decode(which: Iterable[slice]) -> None:
        for block in which:
            some = clicks[block]
            decode_alone(model.backbone, features.expand(len(some)), some, protocol.clicks)

    return {
        "encode": lambda: model.backbone.encode(images),
        "decode": lambda: decode([slice(None)]),
        "decode in blocks": lambda: decode(blocks(case.objects, model.backbone)),
        "sweep": lambda: evaluate_image({"ruac": model}, dataset[0], protocol, scores, domain="benchmark"),
    }


def decode_alone(backbone: Backbone, features: Features, clicks: np.ndarray, count: int) -> None:
    """Every object's click `[N, 2]` once, twice, up to `count` times, the last answer fed back; nothing looks at it."""
    points = torch.tensor(clicks[:, None], dtype=torch.float32)  # [N, 1, 2]
    labels, previous = torch.full(points.shape[:2], OBJECT), None
    for times in range(1, count + 1):
        prompts = Prompts(points.expand(-1, times, -1), labels.expand(-1, times), previous)
        previous = as_prompt(backbone.decode(features, prompts).logits[:, :1])
