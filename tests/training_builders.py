"""A small adversarial training: the real task on procedural scenes, its batches and its runs."""

import torch
from torch.utils.data import default_collate

from ruac.backbone import Backbone
from ruac.backbone.nano import Nano
from ruac.data.synthetic.scenes import SceneConfig, SceneDataset
from ruac.data.training import TrainingSet
from ruac.training.adversarial import AdversarialTask, TrainConfig
from ruac.training.attack import AttackConfig
from ruac.training.curriculum import CurriculumConfig, Phase
from ruac.training.engine import EngineConfig, train
from ruac.training.validation import ValidationConfig
from ruac.uncertainty import BayesianConfig

SIDE = 64
ALL_AT_ONCE = (Phase(1.0, 1.0, 0.05, 1.0),)


def scenes(count=6, seed=0):
    return SceneDataset(count, seed=seed, config=SceneConfig(side=SIDE))


def make_task(*, kind="learned", attack=None, phases=ALL_AT_ONCE, validation=None, check=None, **fields):
    """The real task; a narrow nano with random weights stands in for a trained backbone."""
    torch.manual_seed(7)
    backbone = Backbone(Nano(image_size=SIDE, width=64, mlp=64), name="nano")
    fields = {"source": "scenes", "corrections": 1, "head": BayesianConfig(logit_scale=True)} | fields
    fields |= {"validation": check or ValidationConfig()}
    attack = attack or AttackConfig(kind=kind)
    config = TrainConfig(attack=attack, curriculum=CurriculumConfig(phases=list(phases)), **fields)
    return AdversarialTask(backbone, config, validation)


def stream(task, seed=0):
    return TrainingSet(scenes(), task.config.data, side=SIDE, seed=seed, length=1 << 40)


def make_batch(task, size=2):
    data = stream(task)
    return default_collate([data[n] for n in range(size)])


def run(out, task, *, resume=False, **overrides):
    config = EngineConfig(**({"cpu": True, "batch_size": 2, "log_every": 1, "panel_every": 0} | overrides))
    return train(task, stream(task), config, out, run_config=task.config, resume=resume)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(before, module):
    return {name for name, tensor in module.state_dict().items() if not torch.equal(before[name], tensor)}
