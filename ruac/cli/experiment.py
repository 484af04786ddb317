"""Run an experiment.

What they measure and how to read their numbers: docs/experiments.md.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac experiment annotators data=DIR out=runs/annotators"
EXPERIMENTS = {  # names in ruac.studies.experiments.NAME: what configures it, what runs it
    "annotators": ("AnnotatorsConfig", "run_annotators"),
    "prompt_paths": ("PromptPathsConfig", "run_prompt_paths"),
    "channel_shift": ("ChannelShiftConfig", "run_channel_shift"),
    "next_click": ("NextClickConfig", "run_next_click"),
    "accept": ("AcceptConfig", "run_accept"),
    "own_error": ("OwnErrorConfig", "run_own_error"),
    "calibration": ("CalibrationConfig", "run_calibration"),
    "conformal_shift": ("ConformalShiftConfig", "run_conformal_shift"),
    "attack_look": ("AttackLookConfig", "run_attack_look"),
    "adaptation": ("AdaptationConfig", "run_adaptation"),
}


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--config", type=Path, help="YAML of differences from the experiment's defaults")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config

    module = import_module(f"ruac.studies.experiments.{args.experiment}")
    config, run = (getattr(module, name) for name in EXPERIMENTS[args.experiment])
    print(f"results: {run(load_config(config, args.config, args.overrides))}")
