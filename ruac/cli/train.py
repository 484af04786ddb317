"""Train the uncertainty head. Several processes: accelerate launch -m ruac.cli train ..."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac train ruac source=DIR out=runs/ruac"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("config", help="name of a config of ours, or YAML of differences from TrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.assets import named_config
    from ruac.base.config import load_config
    from ruac.training.adversarial import TrainConfig, train_head

    config = load_config(TrainConfig, named_config(args.config, "train"), args.overrides)
    print(f"checkpoint: {train_head(config, resume=args.resume)}")
