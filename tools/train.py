"""Train the uncertainty head: [accelerate launch] tools/train.py CONFIG.yaml [--resume] source=DIR key=value ..."""

import argparse

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.training.adversarial import TrainConfig, train_head


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of differences from TrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    args = parser.parse_intermixed_args(argv)
    config = load_config(TrainConfig, args.config, args.overrides)
    print(f"checkpoint: {train_head(config, resume=args.resume)}")


if __name__ == "__main__":
    run_tool(main)
