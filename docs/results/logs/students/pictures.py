"""Sums of every validation picture of every finished run, for intervals over pictures: ``pictures.npz`` beside its
``result.json``, whose scores they must add up to.

python docs/results/logs/students/pictures.py runs/students
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ruac.base.config import load_config
from ruac.base.files import atomic_path
from ruac.data.classes import ClassFolder
from ruac.evaluation.metrics.semantic import SemanticSums
from ruac.training.student.models import MobileNetConfig, build_segmenter
from ruac.training.student.run import StudentConfig
from ruac.training.student.split import split_pictures
from ruac.training.student.validation import evaluate


def main(runs: Path) -> None:
    torch.set_num_threads(1)
    for result in sorted(runs.glob("*/*/*/result.json")):
        out = result.with_name("pictures.npz")
        if out.is_file():
            continue
        config = load_config(StudentConfig, result.with_name("config.yaml"), [])
        dataset = ClassFolder(config.source, background=config.background)
        assert isinstance(config.model, MobileNetConfig)
        model = build_segmenter(MobileNetConfig(width=config.model.width), len(dataset.names))
        model.load_state_dict(load_file(result.with_name("student.safetensors")))
        places = split_pictures(dataset, config.split).validation
        sums = [evaluate(model, dataset, [place], side=config.side) for place in places]
        stacked = {name: np.stack([vars(one)[name] for one in sums]) for name in vars(sums[0])}
        whole = SemanticSums(len(dataset.names))
        vars(whole).update({name: values.sum(0) for name, values in stacked.items()})
        stored = json.loads(result.read_text())["validation"]
        for name, value in whole.compute().items():
            assert abs(value - stored[name]) < 1e-6, (result, name, value, stored[name])
        with atomic_path(out) as temporary, open(temporary, "wb") as file:
            np.savez(file, **stacked)
        print(out, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
