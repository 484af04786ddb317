"""What it saves to judge the candidates of automatic masks at the decoder's resolution."""

from __future__ import annotations

import numpy as np

from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.inference.automatic import VALUES, AutomaticConfig, AutomaticMasks, grid_points
from ruac.inference.predictor import Predictor
from ruac.studies.benchmark.rows import Row, fastest


def run(*, sides: tuple[int, ...], points_per_side: int, repeats: int) -> list[Row]:
    """All masks of a square picture with `sides` pixels, by the embedded model.

    Ratio: to answering every click at the picture's size and judging those maps, the least that choosing among them
    costs. What is left of it are decoder, head and, of the masks that stay, maps.
    """
    predictor, rows = Predictor(device="cpu"), []
    for side in sides:
        image = SceneDataset(1, seed=0, config=SceneConfig(side=side, min_pixels=side))[0].image
        points = grid_points(points_per_side) * side
        batch = max(1, VALUES // (3 * side**2))

        def at_full_size(image: np.ndarray = image, points: np.ndarray = points, batch: int = batch) -> None:
            predictor.set_image(image)
            for start in range(0, len(points), batch):
                some = points[start : start + batch, None]
                _ = predictor.predict(some, np.ones(some.shape[:2])).trust

        def generate(image: np.ndarray = image) -> None:
            AutomaticMasks(predictor, AutomaticConfig(points_per_side=points_per_side)).generate(image)

        seconds = fastest({"full": at_full_size, "generate": generate}, repeats=repeats)
        name = f"automatic: {points_per_side**2} clicks, {side} px"
        note = f"{seconds['full']:.3g} s at full size"
        rows.append(Row(name, seconds["generate"], seconds["generate"] / seconds["full"], "", note))
    return rows
