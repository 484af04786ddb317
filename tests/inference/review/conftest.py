"""A predicted folder with masks and reliabilities that are known."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ruac.base.files import sha256
from ruac.inference.predicted import PredictedMasks
from ruac.inference.save import INDEX, PictureAnswer

HEIGHT, WIDTH = 37, 53


@dataclass
class Predicted:
    """folder: what was written. pictures: where the pictures lie. masks: of each object by file and id."""

    folder: Path
    pictures: Path
    masks: dict[tuple[str, int], np.ndarray]
    uncertainty: dict[str, np.ndarray]


def blob(rng):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    y, x = rng.uniform(5, HEIGHT - 5), rng.uniform(5, WIDTH - 5)
    inside = (columns - x) ** 2 / rng.uniform(9, 99) + (rows - y) ** 2 / rng.uniform(9, 99) <= 1
    return inside & (rng.random((HEIGHT, WIDTH)) < 0.9)


@pytest.fixture(scope="session")
def predicted(tmp_path_factory):
    """Four pictures: reliabilities of the objects 0.9 and 0.6; 0.3; none; 0.95 and an empty mask."""
    rng = np.random.default_rng(5)
    root = tmp_path_factory.mktemp("review")
    folder, pictures = root / "answers", root / "pictures"
    (pictures / "sub").mkdir(parents=True)
    found = Predicted(folder, pictures, {}, {})
    listed = []
    plan = {"a b.png": [0.9, 0.6], "sub/c.png": [0.3], "d.png": [], "e.png": [0.95, None]}
    for file, reliabilities in plan.items():
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)).save(pictures / file)
        digest = sha256(pictures / file)
        whole = PictureAnswer((HEIGHT, WIDTH))
        for number, reliability in enumerate(reliabilities, start=1):
            mask = np.zeros((HEIGHT, WIDTH), bool) if reliability is None else blob(rng)
            found.masks[file, number] = mask
            uncertainty = rng.random((1, HEIGHT, WIDTH)).astype(np.float32)
            found.uncertainty[file] = np.maximum(found.uncertainty.get(file, 0), uncertainty[0])
            scores = np.array([0.8], np.float32)
            given = np.array([0.99 if reliability is None else reliability], np.float32)
            answer = PredictedMasks(mask[None], scores, scores, uncertainty, uncertainty, reliability=given)
            whole.add(answer, kind="cat & <dog>" if number == 1 else "object")
        whole.save(folder, file, picture={"file": file, "sha256": digest}, settings="x")
        listed.append({"file": file, "sha256": digest, "answer": f"{file}.json"})
    index = {
        "format": 1,
        "pictures": listed,
        "failed": [{"file": "z.png", "reason": "broken"}],
        "without_prompt": ["y.png"],
    }
    (folder / INDEX).write_text(json.dumps(index))
    return found
