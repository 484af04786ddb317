"""What the Bayesian head and its training cost on top of SAM 2."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.utils.data import default_collate

from ruac.backbone import BackboneConfig, Features, build_backbone
from ruac.backbone.load import ROOT
from ruac.backbone.prompts import OBJECT, Prompts
from ruac.base.config import load_config
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import DEFAULT
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.uncertainty import probit_logit
from ruac.uncertainty.maps import logit_uncertainty, monte_carlo_maps, uncertainty_maps

FEW, SAMPLES = 5, 20
TARGETS = {
    "decode, Bayesian head": "<= 1.10",
    "decode, Bayesian head, kappa_pool 2": "<= 1.10",
    "decode, with all that it has": "<= 1.10",
    f"maps, {SAMPLES} samples": ">= 50",
}
PROGRESS = 0.9  # of training: with all terms and the attackers


def run(*, cases: Iterable[Case], repeats: int, train_side: int, batch_size: int) -> list[Row]:
    """One decoder pass, the maps of its answers, and one training step. Ratio: to the first row of each group; of
    samples, how many times as much as the analytic maps."""
    rows, cases = [], list(cases)
    for case in cases:
        rows += _relative(str(case), fastest(_inference(case), repeats=repeats))
    for count in sorted({case.objects for case in cases}):
        rows += _relative(f"the default model, {count} objects", fastest(_embedded(count), repeats=repeats))
    title = f"nano, {train_side} px, {batch_size} images"
    return rows + _relative(title, fastest(_training(train_side, batch_size), repeats=repeats))


def _relative(title: str, seconds: dict[str, float]) -> list[Row]:
    rows, first = [], None
    for name, value in seconds.items():
        group = name.split(",")[0]
        if first is None or first[0] != group:
            first = group, value
        target = TARGETS.get(name, "")
        rows.append(Row(f"{title}: {name}", value, value / first[1], target))
    return rows


def _features(model: UncertainSam, side: int) -> Features:
    """Random maps of the shapes that `encode` gives."""
    width = model.backbone.token_dim
    return Features(
        torch.randn(1, width, side // 16, side // 16),
        [torch.randn(1, width // 8, side // 4, side // 4), torch.randn(1, width // 4, side // 8, side // 8)],
    )


@torch.no_grad()
def _inference(case: Case) -> dict:
    model = case.model()
    vanilla = UncertainSam(model.backbone, None)
    pooled = UncertainSam(model.backbone, copy.deepcopy(model.head))
    pooled.head.config.kappa_pool = 2
    asked = _asked(model, case.objects)
    posterior = model.decode(*asked).posterior.select(_chosen(case.objects))

    @torch.no_grad()
    def analytic() -> None:
        logit = probit_logit(*posterior.calibrated())
        logit_uncertainty(logit), logit.sigmoid()

    split = torch.no_grad()(lambda: uncertainty_maps(*posterior.calibrated()))
    return {
        "decode, vanilla": _decode(vanilla, asked),
        "decode, Bayesian head": _decode(model, asked),
        "decode, Bayesian head, kappa_pool 2": _decode(pooled, asked),
        "maps, analytic": analytic,
        "maps, with quadrature split": split,
        **{f"maps, {n} samples": lambda n=n: monte_carlo_maps(posterior, n) for n in (FEW, SAMPLES)},
    }


def _embedded(objects: int) -> dict:
    model = load_exported(DEFAULT).eval()
    asked = _asked(model, objects)
    return {
        "decode, vanilla": _decode(UncertainSam(model.backbone, None), asked),
        "decode, with all that it has": _decode(model, asked),
    }


def _asked(model: UncertainSam, objects: int) -> tuple[Features, Prompts]:
    """Random features and a click on each object."""
    features = _features(model, model.image_size).gather(torch.zeros(objects, dtype=torch.int64))
    return features, Prompts(model.image_size * torch.rand(objects, 1, 2), torch.full((objects, 1), OBJECT))


def _chosen(objects: int) -> Tensor:
    return torch.ones(objects, dtype=torch.int64)


def _decode(model: UncertainSam, asked: tuple[Features, Prompts]) -> Callable[[], None]:
    """A decoder pass with probability and total uncertainty of the returned token, at the decoder's resolution."""

    @torch.no_grad()
    def work() -> None:
        logit = model.decode(*asked).calibrated_logit(_chosen(len(asked[1].points)))
        logit_uncertainty(logit), logit.sigmoid()

    return work


def _training(side: int, batch_size: int) -> dict:
    scenes = SceneDataset(batch_size, seed=0, config=SceneConfig(side=side))
    works = {}
    for name in ("bayes", "ruac"):
        torch.manual_seed(0)
        config = load_config(TrainConfig, ROOT / "configs" / "train" / f"{name}.yaml", ["source=scenes"])
        task = AdversarialTask(build_backbone(BackboneConfig(image_size=side)), config, None).train()
        data = TrainingSet(scenes, config.data, side=side, seed=0, length=batch_size)
        batch = default_collate([data[number] for number in range(batch_size)])
        works[f"training step, {name}.yaml"] = lambda task=task, batch=batch: task(batch, PROGRESS)["loss"].backward()
    return works
