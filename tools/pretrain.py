"""Train the nano backbone promptably: tools/pretrain.py CONFIG.yaml [--resume] key=value ..."""

import argparse

from ruac.backbone.backbone import Backbone
from ruac.backbone.mobilenet import load_imagenet_trunk
from ruac.backbone.nano import Nano, load_nano
from ruac.config import load_config
from ruac.data.coco import CocoFolder
from ruac.data.training import TrainingSet
from ruac.errors import run_tool
from ruac.train.engine import STREAM_LENGTH, train
from ruac.train.pretrain import PretrainConfig, PretrainTask


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of differences from PretrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    args = parser.parse_intermixed_args(argv)
    config = load_config(PretrainConfig, args.config, args.overrides)

    nano = Nano(image_size=config.image_size, trunk=config.trunk)
    if config.trunk_weights:
        load_imagenet_trunk(nano.image_encoder.trunk, config.trunk_weights)
    if config.init:
        load_nano(nano, config.init)
    task = PretrainTask(Backbone(nano, name="nano"), config, CocoFolder(config.source, split=config.validation_split))
    data = TrainingSet(
        CocoFolder(config.source, split=config.train_split),
        config.data,
        side=config.image_size,
        seed=config.engine.seed,
        length=STREAM_LENGTH,
    )
    train(task, data, config.engine, config.out, run_config=config, resume=args.resume)


if __name__ == "__main__":
    run_tool(main)
