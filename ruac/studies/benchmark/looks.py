"""What a second look costs beside asking anew."""

from __future__ import annotations

import numpy as np
import torch

from ruac.backbone.prompts import OBJECT, Prompts, central_pixel
from ruac.data.augment import prepare
from ruac.inference.look_mean import look_again
from ruac.inference.second_look import LooksConfig, Question
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest

MOST = 1.3


@torch.no_grad()
def run(*, side: int, objects: int, repeats: int) -> list[Row]:
    """`nano`: a zoom at each object. Ratio: to encoding a picture and decoding one object with maps as often as there
    are objects."""
    case = Case("nano", side, objects)
    model, sample = case.model(), case.sample()
    clicks = np.array([central_pixel(mask) for mask in sample.masks])
    count = len(clicks)
    images = prepare(sample.image, side)
    prompts = Prompts(torch.tensor(clicks[:, None], dtype=torch.float32), torch.full((count, 1), OBJECT))
    choice = torch.ones(count, dtype=torch.int64)
    prediction = model.decode(model.encode(images).expand(count), prompts)
    question = Question(sample.image, prompts, prediction, choice, sample.masks)
    configs = {name: LooksConfig(looks=[name], largest=1.0) for name in ("zoom", "flip")}

    def anew() -> None:
        for n in range(count):
            features = model.encode(images)
            one = model.decode(features, Prompts(prompts.points[n : n + 1], prompts.labels[n : n + 1]))
            one.maps(choice[:1, None], (side, side))

    works = {"encode and decode each": anew}
    works |= {f"look, {name}": lambda c=config: look_again(model, c, question) for name, config in configs.items()}
    seconds = fastest(works, repeats=repeats)
    base = seconds["encode and decode each"]
    rows = []
    for name, value in seconds.items():
        target = f"<= {MOST}" if name == "look, zoom" else ""
        rows.append(Row(f"nano, {side} px, {count} objects: {name}", value, value / base, target))
    return rows
