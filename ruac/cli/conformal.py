"""Fit inner and outer masks with a guarantee to source images.

The file it writes lies inside an export by default, where Predictor, `ruac predict --alpha` and a sweep find it.
"""

from __future__ import annotations

from pathlib import Path

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac conformal source=DIR@val export=checkpoints/ruac_nano alpha=0.1 out=runs/conformal.json"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("--config", type=Path, help="YAML of differences from ConformalConfig")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    args = parser.parse_intermixed_args(argv)

    from ruac.base.config import load_config
    from ruac.conformal.bounds import load_bounds
    from ruac.evaluation.conformal.fit import ConformalConfig, run_conformal

    config = load_config(ConformalConfig, args.config, args.overrides)
    path = run_conformal(config)
    found = load_bounds(path).at(config.alpha)
    print(f"outer mask: p >= {found.outer:.4g}\ninner mask: p >= {found.inner:.4g}\nbounds: {path}")
