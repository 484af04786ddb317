"""What several tests share: a small random backbone, a tiny data set, the real data where it lies."""

import ruac  # noqa: F401, I001  (first of all: it mends torchvision for what is imported below)

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from builders import export_with_backbone_beside, rle_of, save_backbone, with_head
from PIL import Image
from pycocotools import mask as rle

from ruac.backbone import Backbone, BackboneConfig, build_backbone

torch.set_num_threads(1)

HEIGHT, WIDTH = 48, 64


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def fresh_accelerator() -> None:
    """Of an earlier test in this process nothing is left: accelerate keeps what it was first asked for."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def make_nano() -> Callable[..., Backbone]:
    """``make_nano(side=64)``: a new frozen nano with random weights, always the same."""

    def make(side: int = 64) -> Backbone:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return build_backbone(BackboneConfig(image_size=side)).freeze()

    return make


@pytest.fixture(scope="session")
def nano(make_nano: Callable[..., Backbone]) -> Backbone:
    """The one of 64 pixels that all tests share; a test that changes a backbone makes its own."""
    return make_nano()


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of 64x48 with two or three overlapping shapes; six in train.txt, two in val.txt."""
    root = tmp_path_factory.mktemp("shapes")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    content: dict[str, list[dict]] = {"images": [], "annotations": []}
    for number in range(8):
        picture, masks = _picture(rng, count=2 + number % 2)
        name = f"{number}.png"
        Image.fromarray(picture).save(root / "images" / name)
        content["images"].append(
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT, "origin": "ab"[number % 2]}
        )
        for mask in masks:
            code = rle_of(mask)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": rle.toBbox(code).tolist(),
                    "segmentation": code,
                }
            )
    content["categories"] = [{"id": 1, "name": "object"}]
    (root / "annotations.json").write_text(json.dumps(content))
    (root / "train.txt").write_text("".join(f"{n}.png\n" for n in range(6)))
    (root / "val.txt").write_text("6.png\n7.png\n")
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """A headless Chromium, of playwright or of the system."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser can be started: {str(error).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data sets, beside the repository."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs the data sets in ../shared/data")
    return path


@pytest.fixture(scope="session")
def shelf(tmp_path_factory, nano, coco_folder):
    """A folder with backbone.yaml, an export named head, and two domains under domains/."""
    folder = tmp_path_factory.mktemp("shelf")
    export_with_backbone_beside(with_head(nano), save_backbone(nano, folder), folder / "head")
    for name in ("first", "second"):
        shutil.copytree(coco_folder, folder / "domains" / name)
    return folder


def _picture(rng: np.random.Generator, *, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Ellipses and boxes around neighbouring places, so that they overlap, on a noisy ground."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = rng.integers(40, 90, (HEIGHT, WIDTH, 3))
    masks = []
    for index in range(count):
        x, y = 20 + 10 * index + rng.integers(-3, 4), 18 + 5 * index + rng.integers(-3, 4)
        across, down = rng.integers(7, 14, 2)
        if rng.random() < 0.5:
            mask = ((columns - x) / across) ** 2 + ((rows - y) / down) ** 2 <= 1
        else:
            mask = (abs(columns - x) <= across) & (abs(rows - y) <= down)
        picture[mask] = rng.integers(100, 256, 3) + rng.integers(-8, 9, (mask.sum(), 3))
        masks.append(mask)
    return picture.clip(0, 255).astype(np.uint8), masks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with 64 KB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
