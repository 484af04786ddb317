"""A folder with classes that a student trains on in seconds, and the config of such a run."""

import numpy as np
import pytest
from PIL import Image

NAMES = ["background", "round", "square"]


@pytest.fixture(scope="session")
def classed(tmp_path_factory):
    """Twelve pictures of 40x48 as label maps, a bright disk and a dark square on each; the last has no labels."""
    root = tmp_path_factory.mktemp("classes") / "data"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:40, :48]
    for number in range(12):
        labels = np.zeros((40, 48), np.uint8)
        y, x = rng.integers(10, 30), rng.integers(10, 20)
        labels[np.hypot(rows - y, columns - x) < 8] = 1
        labels[8:20, 30 : 36 + number % 4] = 2
        picture = np.array([[120, 130, 110], [240, 200, 60], [20, 40, 90]])[labels] + rng.integers(-9, 10, (40, 48, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number:02}.png")
        if number < 11:
            labels[:2] = 255
            Image.fromarray(labels).save(root / "labels" / f"{number:02}.png")
    return root


@pytest.fixture
def settings(classed):
    """Overrides of a run of a few steps on the CPU."""
    return [
        *(f"source={classed}", "side=32", "epochs=2", "stages.start=1", "model.width=8", "engine.batch_size=2"),
        *("engine.cpu=true", "engine.log_every=1", "validate_epochs=1", "split.fraction=0.5", "split.held_out=0.2"),
    ]
