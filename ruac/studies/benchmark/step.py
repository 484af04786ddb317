"""A training step beside what no step can do without, and the pictures that it waits for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ruac.backbone import BackboneConfig, Features, build_backbone
from ruac.backbone.clicks import answer_and_correct
from ruac.backbone.load import ROOT
from ruac.backbone.prompts import Prompts, first_prompts
from ruac.base.config import load_config
from ruac.data.open import open_dataset
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.data.write import write_coco
from ruac.inference.model import predict
from ruac.studies.benchmark.memory import peak_memory, resident_memory
from ruac.studies.benchmark.rows import Row, fastest
from ruac.training.adversarial import AdversarialTask, TrainConfig

SMALL = 64  # side of the picture of a step that is not counted
PROGRESS = 0.9  # of training: with all terms and the attackers
MOST, MOST_MEMORY = 1.10, 1.15


class Step:
    """`ruac.yaml` on `nano` with a batch of scenes, read from disk as in training."""

    def __init__(self, side: int, batch_size: int, folder: Path):
        scenes = SceneDataset(batch_size, seed=0, config=SceneConfig(side=side, objects=(3, 6)))
        write_coco(list(scenes), folder / "data")
        torch.manual_seed(0)
        config = load_config(TrainConfig, ROOT / "configs" / "train" / "ruac.yaml", ["source=scenes"])
        self.task = AdversarialTask(build_backbone(BackboneConfig(image_size=side)), config, None).train()
        data = TrainingSet(open_dataset(folder / "data"), config.data, side=side, seed=0, length=batch_size)
        self.load = lambda: default_collate([data[number] for number in range(batch_size)])
        self.batch = self.load()
        self.asked = self.rounds()

    @torch.no_grad()
    def rounds(self) -> list[tuple[Prompts, Tensor]]:
        """The prompts of every pass of a branch and the token that each returns, drawn as training draws them."""
        masks, features = self._objects(), self._gathered(self.clean_encode())
        found = answer_and_correct(
            lambda asked: self.task.backbone.decode(features, asked),
            first_prompts(masks, box_share=self.task.config.box_share),
            masks,
            corrections=self.task.config.corrections,
        )
        return [(asked, choice) for _, choice, asked in found]

    def whole(self) -> None:
        self.task(self.batch, PROGRESS)["loss"].backward()
        self.task.zero_grad()

    def clean_encode(self) -> Features:
        with torch.no_grad():
            return self.task.backbone.encode(self.batch["image"])

    def decode(self, features: Features) -> Tensor:
        """Every pass of a branch with the head: the first prompt and each correction. What comes out of the mean and
        the variance of the returned token's logits, which reach all that is trained; losses and attackers start there.
        """
        gathered = self._gathered(features)
        total = torch.zeros(())
        for prompts, choice in self.asked:
            answer = predict(self.task.backbone.decode(gathered, prompts), self.task.head)
            total = total + sum(x.mean() for x in answer.posterior.select(choice).calibrated())
        return total

    def _objects(self) -> Tensor:
        return self.batch["masks"][self.batch["valid"]] > 0.5

    def _gathered(self, features: Features) -> Features:
        return features.gather(self.batch["valid"].nonzero()[:, 0])

    def clean_decode(self) -> None:
        self.decode(self._clean).backward()
        self.task.zero_grad()

    def adversarial(self) -> None:
        """Encode and decode a picture with gradients, back to the picture."""
        image = self.batch["image"].clone().requires_grad_()
        self.decode(self.task.backbone.encode(image)).backward()
        self.task.zero_grad()

    def floor(self) -> None:
        self._clean = self.clean_encode()
        self.clean_decode()
        self.adversarial()


def run(*, side: int, batch_size: int, repeats: int) -> list[Row]:
    """Parts of the floor, the floor and the step, ratio: to the floor. Loading: to the step. Memory: the step's peak
    beyond what was resident before, to the bytes that its graph keeps for the way back."""
    title = f"nano, {side} px, {batch_size} images"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        step = Step(side, batch_size, Path(folder))
        step.floor()
        works: dict[str, Callable[[], object]] = {
            "clean encode": step.clean_encode,
            "clean decode, forward and backward": step.clean_decode,
            "adversarial encode and decode, forward and backward": step.adversarial,
            "floor": step.floor,
            "step of ruac.yaml": step.whole,
            "loading its batch": step.load,
        }
        seconds = fastest(works, repeats=repeats)
    base, whole = seconds["floor"], seconds["step of ruac.yaml"]
    rows = []
    for name, value in seconds.items():
        ratio, target = value / base, f"<= {MOST}" if name == "step of ruac.yaml" else ""
        if name == "loading its batch":
            ratio, target = value / whole, "<= 1.0"
        rows.append(Row(f"{title}: {name}", value, ratio, target))
    return [*rows, _memory(title, side, batch_size)]


def _memory(title: str, side: int, batch_size: int) -> Row:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        peak, live = pool.submit(_measure, side, batch_size).result()
    note = f"peak {peak / 2**20:.0f} MiB, kept {live / 2**20:.0f} MiB"
    return Row(f"{title}: peak memory of a step, to its live activations", 0.0, peak / live, f"<= {MOST_MEMORY}", note)


def _measure(side: int, batch_size: int) -> tuple[int, int]:
    """Bytes at the step's peak beyond those that were resident before it, and bytes that autograd keeps."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("small", "step"):
            (Path(folder) / name).mkdir()
        Step(SMALL, 1, Path(folder) / "small").whole()  # libraries, compiled code and their buffers
        step = Step(side, batch_size, Path(folder) / "step")
        before = resident_memory()
        kept: dict[int, int] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in step.task.parameters()}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step.task(step.batch, PROGRESS)["loss"]
        loss.backward()
        return peak_memory() - before, sum(kept.values())
