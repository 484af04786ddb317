"""How encoding, decoding and scoring grow with the size of pictures, the number of objects, and the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ruac.backbone.prompts import OBJECT, Prompts
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Scores, evaluate_image
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest


@torch.no_grad()
def run(*, sides: Sequence[int], objects: Sequence[int], batches: Sequence[int], repeats: int) -> list[Row]:
    """`nano`. Ratio: of the time per pixel, object or picture to that at the smallest size: 1 is linear growth, less
    is better."""
    rows = []
    for side in sides:
        case = Case("nano", side, 4)
        model = case.model()
        images = torch.randn(1, 3, side, side)
        features = model.backbone.encode(images).expand(case.objects)
        prompts = Prompts(side * torch.rand(case.objects, 1, 2), torch.full((case.objects, 1), OBJECT))
        choice = torch.ones(case.objects, dtype=torch.int64)
        works = {
            "encode": lambda model=model, images=images: model.backbone.encode(images),
            "decode with maps": lambda m=model, f=features, p=prompts, c=choice: m.decode(f, p).calibrated_logit(c),
        }
        seconds = fastest(works, repeats=repeats)
        rows += [(name, f"{side} px", value, side**2) for name, value in seconds.items()]
    model, protocol = Case("nano", 256).model(), ProtocolConfig()
    models = {"ruac": model}
    for count in objects:
        sample = Case("nano", 256, count).sample()
        count = len(sample.masks)
        one = {"sweep": lambda s=sample: evaluate_image(models, s, protocol, Scores(), domain="benchmark")}
        one["sweep"]()
        value = fastest(one, repeats=repeats)["sweep"]
        rows.append(("sweep of a picture", f"{count} objects", value, count))
    for count in batches:
        images = torch.randn(count, 3, 256, 256)
        value = fastest({"": lambda i=images: model.backbone.encode(i)}, repeats=repeats)[""]
        rows.append(("encode a batch", f"{count} pictures", value, count))
    return _linear(rows)


def _linear(measured: list[tuple[str, str, float, int]]) -> list[Row]:
    """From what was done, at which size, its seconds and that size as a number."""
    first: dict[str, float] = {}
    rows = []
    for work, at, seconds, size in measured:
        each = seconds / size
        rows.append(Row(f"nano: {work}, {at}", seconds, each / first.setdefault(work, each)))
    return rows
