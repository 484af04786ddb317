"""Train the nano backbone promptably: tools/pretrain.py CONFIG.yaml [--resume] source=DIR key=value ..."""

import argparse

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.training.pretrain import PretrainConfig, pretrain


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="YAML of differences from PretrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    parser.add_argument("--save", metavar="FILE", help="write the finished weights here, as float16 safetensors")
    args = parser.parse_intermixed_args(argv)
    config = load_config(PretrainConfig, args.config, args.overrides)
    print(f"checkpoint: {pretrain(config, resume=args.resume, save=args.save)}")


if __name__ == "__main__":
    run_tool(main)
