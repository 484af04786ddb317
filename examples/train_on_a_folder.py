"""Train the uncertainty head on a folder of your own, export it and use it: minutes on two cores.

python examples/train_on_a_folder.py [OUT [KEY=VALUE ...]]

Your folder looks as the one that is drawn here: ``images/NAME.png`` beside ``masks/NAME.png``, whose values number the
objects (0 is background), with the names of a training and a validation part in ``train.txt`` and ``val.txt``.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ruac import Predictor
from ruac.base.assets import named_config
from ruac.base.config import load_config
from ruac.data.synthetic.scenes import SceneDataset
from ruac.training.adversarial import TrainConfig, train_head
from ruac.training.export_run import export_run


def draw_folder(folder: Path, train: int = 40, val: int = 8) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    scenes = SceneDataset(train + val, seed=11)
    names = [f"{index:03}.png" for index in range(len(scenes))]
    for name, scene in zip(names, scenes, strict=True):
        numbers = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)
        Image.fromarray(scene.image).save(folder / "images" / name)
        Image.fromarray((scene.masks * numbers[:, None, None]).max(0).astype(np.uint8)).save(folder / "masks" / name)
    (folder / "train.txt").write_text("\n".join(names[:train]))
    (folder / "val.txt").write_text("\n".join(names[train:]))


def main(out: str = "runs/examples/train", *overrides: str) -> None:
    folder, run = Path(out) / "data", Path(out) / "run"
    draw_folder(folder)
    # As `ruac train quickstart source=... train_split=train validation_split=val out=...` does.
    given = [f"source={folder}", "train_split=train", "validation_split=val", f"out={run}", *overrides]
    train_head(load_config(TrainConfig, named_config("quickstart", "train"), given), resume=False)
    export = export_run(run, Path(out) / "export", with_backbone=True)

    predictor = Predictor(export)
    predictor.set_image(folder / "images" / "040.png")
    answer = predictor.predict([[128, 128]], [1])
    print(f"export: {export}\npredicted IoU {answer.scores[0]:.2f}, mean doubt {answer.uncertainty[0].mean():.3f}")


if __name__ == "__main__":  # workers that read pictures start this file again
    main(*sys.argv[1:])
