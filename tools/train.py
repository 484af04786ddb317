"""Train the uncertainty head: [accelerate launch] tools/train.py CONFIG.yaml [--resume] source=DIR key=value ..."""

import argparse

from ruac.backbone import load_backbone
from ruac.config import load_config
from ruac.data.open import open_dataset
from ruac.data.training import TrainingSet
from ruac.errors import run_tool
from ruac.train.adversarial import AdversarialTask, TrainConfig
from ruac.train.engine import STREAM_LENGTH, train


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of differences from TrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    args = parser.parse_intermixed_args(argv)
    config = load_config(TrainConfig, args.config, args.overrides)

    backbone = load_backbone(config.backbone)
    dataset = open_dataset(config.source, split=config.train_split)
    held_out = open_dataset(config.source, split=config.validation_split) if config.validation_split else None
    data = TrainingSet(dataset, config.data, side=backbone.image_size, seed=config.engine.seed, length=STREAM_LENGTH)
    task = AdversarialTask(backbone, config, held_out)
    checkpoint = train(task, data, config.engine, config.out, run_config=config, resume=args.resume)
    print(f"checkpoint: {checkpoint}")


if __name__ == "__main__":
    run_tool(main)
