"""Run an experiment: tools/experiment.py annotators|prompt_paths|channel_shift [--config YAML] key=value ...

What they measure and how to read their numbers: docs/experiments.md.
"""

import argparse
from pathlib import Path

from ruac.base.config import load_config
from ruac.base.errors import run_tool
from ruac.studies.experiments.annotators import AnnotatorsConfig, run_annotators
from ruac.studies.experiments.channel_shift import ChannelShiftConfig, run_channel_shift
from ruac.studies.experiments.prompt_paths import PromptPathsConfig, run_prompt_paths

EXPERIMENTS = {
    "annotators": (AnnotatorsConfig, run_annotators),
    "prompt_paths": (PromptPathsConfig, run_prompt_paths),
    "channel_shift": (ChannelShiftConfig, run_channel_shift),
}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--config", type=Path, help="YAML of differences from the experiment's defaults")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)
    config, run = EXPERIMENTS[args.experiment]
    print(f"results: {run(load_config(config, args.config, args.overrides))}")


if __name__ == "__main__":
    run_tool(main)
