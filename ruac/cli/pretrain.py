"""Train the nano backbone promptably."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac pretrain nano_256 source=DIR out=runs/nano --save nano.safetensors"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("config", help="name of a config of ours, or YAML of differences from PretrainConfig")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--resume", action="store_true", help="continue the run in out=")
    parser.add_argument("--save", metavar="FILE", help="write the finished weights here, as float16 safetensors")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.assets import named_config
    from ruac.base.config import load_config
    from ruac.training.pretrain import PretrainConfig, pretrain

    config = load_config(PretrainConfig, named_config(args.config, "pretrain"), args.overrides)
    print(f"checkpoint: {pretrain(config, resume=args.resume, save=args.save)}")
