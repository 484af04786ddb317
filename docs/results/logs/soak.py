"""Memory and open files over a long training and a long sweep, on the smallest model there is: the nano at 64 pixels.

``python docs/results/logs/soak.py training 10000 OUT`` or ``... sweep 100000 OUT``. Writes ``OUT/soak.csv``, a line a
second with the number done, resident memory, what of the heap is in use and the open file handles of the process, and
says at the end how they grew in the last three quarters: what is allocated once is allocated by then. Resident memory
also tells of gaps that the heap keeps between what is in use; a leak is in both. Linux with glibc.
"""

from __future__ import annotations

import csv
import ctypes
import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch

import ruac  # noqa: F401  (first of all: it mends torchvision for what is imported below)
from ruac.base.assets import asset_root, named_config
from ruac.base.config import load_config
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.data.write import write_coco
from ruac.evaluation.sweep import runner
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.training.adversarial import TrainConfig, train_head

SIDE, PICTURES, STEPS_SAVED = 64, 50, 500
COPIES = 100  # of the pictures in one domain, about 20,000 objects: ten chunks of a sweep


class Heap(ctypes.Structure):
    """glibc's ``mallinfo2``: ten sizes over all arenas, the 5th of mapped blocks, the 8th of others in use."""

    _fields_ = (("sizes", ctypes.c_size_t * 10),)


def heap_in_use() -> float:
    """MiB that were asked for and not given back."""
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Heap
    sizes = ask().sizes
    return (sizes[4] + sizes[7]) / 2**20


class Watch:
    """Samples the process once a second in a thread; `done` is counted up from outside."""

    def __init__(self, path: Path):
        self.path, self.done, self.rows = path, 0, []
        self._process, self._over = psutil.Process(), threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        rows = np.array(self.rows)
        busy = rows[rows[:, 1] < rows[-1, 1]]  # the end of a sweep, which puts rows in order, is another matter
        late = busy[busy[:, 1] >= rows[-1, 1] / 4]
        for column, name in ((2, "resident memory, MiB"), (3, "heap in use, MiB"), (4, "open files")):
            first, last = (part[:, column].mean() for part in np.array_split(late, 4)[::3])
            growth, most = np.polyfit(late[:, 1], late[:, column], 1)[0] * 1000, late[:, column].max()
            print(f"{name}: {first:.1f} at first, {last:.1f} at the end, most {most:.1f}; {growth:+.3f} per 1000 done")
        print(f"{int(rows[-1, 1])} done in {rows[-1, 0]:.0f} s")

    def _sample(self) -> None:
        started = time.monotonic()
        with self.path.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["seconds", "done", "rss_mib", "heap_mib", "open_files"])
            while True:
                ended = self._over.wait(1.0)
                self.rows.append(
                    (
                        round(time.monotonic() - started, 1),
                        self.done,
                        round(self._process.memory_info().rss / 2**20, 2),
                        round(heap_in_use(), 3),
                        self._process.num_fds(),
                    )
                )
                writer.writerow(self.rows[-1])
                stream.flush()
                if ended:
                    return


def prepare(out: Path) -> tuple[Path, Path, int]:
    """A data set, the backbone's YAML, and the number of objects."""
    scenes, data = SceneDataset(PICTURES, seed=1, config=SceneConfig(side=SIDE, objects=(3, 5))), out / "data"
    if not data.exists():
        write_coco((scenes[n] for n in range(PICTURES)), data)
    weights = asset_root() / "checkpoints" / "nano.safetensors"
    (out / "backbone.yaml").write_text(f"kind: nano\ncheckpoint: {weights}\nimage_size: {SIDE}\n")
    return data, out / "backbone.yaml", sum(len(record.object_ids) for record in scenes.records)


def repeat(data: Path, out: Path, times: int) -> None:
    """A data set of the pictures of another, each under so many names."""
    content = json.loads((data / "annotations.json").read_text())
    (out / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for time_ in range(times):
        for image in content["images"]:
            name = f"{time_:03}_{image['file_name']}"
            if not (link := out / "images" / name).exists():
                link.symlink_to((data / "images" / image["file_name"]).resolve())
            images.append(image | {"id": f"{time_}/{image['id']}", "file_name": name})
        for entry in content["annotations"]:
            annotations.append(entry | {"id": f"{time_}/{entry['id']}", "image_id": f"{time_}/{entry['image_id']}"})
    content |= {"images": images, "annotations": annotations}
    (out / "annotations.json").write_text(json.dumps(content))


def training(steps: int, out: Path, watch: Watch) -> None:
    data, backbone, _ = prepare(out)
    drawn = TrainingSet.__getitem__

    def counted(self: TrainingSet, number: int) -> dict:
        watch.done += 1  # of one picture a step
        return drawn(self, number)

    TrainingSet.__getitem__ = counted
    settings = [f"source={data}", f"backbone={backbone}", f"out={out / 'run'}", "corrections=0"]
    engine = {"cpu": "true", "steps": steps, "batch_size": 1, "save_every": STEPS_SAVED, "panel_every": STEPS_SAVED}
    settings += [f"engine.{name}={value}" for name, value in engine.items()]
    train_head(load_config(TrainConfig, named_config("ruac", "train"), settings), resume=False)


def sweep(objects: int, out: Path, watch: Watch) -> None:
    data, backbone, each = prepare(out)
    copies = -(-objects // each)
    for number, first in enumerate(range(0, copies, COPIES)):
        repeat(data, out / "domains" / f"{number:03}", min(COPIES, copies - first))
    evaluate = runner.evaluate_image

    def counted(models: dict, sample: object, *args: object, **kwargs: object) -> None:
        evaluate(models, sample, *args, **kwargs)
        watch.done += len(sample.masks)

    runner.evaluate_image = counted
    config = SweepConfig(
        models=[ModelConfig("vanilla", backbone=str(backbone))],
        domains=[str(out / "domains")],
        out=str(out / "swept"),
        cpu=True,
        panels=0,
    )
    config = replace(config, protocol=replace(config.protocol, clicks=1))
    config.validate()
    runner.run_sweep(config)


def main() -> None:
    what, number, out = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    with Watch(out / "soak.csv") as watch:
        {"training": training, "sweep": sweep}[what](number, out, watch)


if __name__ == "__main__":
    main()
