"""Compare sweeps of the same objects under the same protocol.

Every further one against the first; without :MODEL, the folder's last model.
"""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac compare runs/one runs/other:ruac"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("results", nargs="+", metavar="FOLDER[:MODEL]")
    parser.add_argument("--metrics", nargs="+", help="columns of domains.csv (default: J&F, ECE, AUROC, AURC, PRR)")
    parser.add_argument("--region", default="band")
    args = parser.parse_args(argv)

    from ruac.evaluation.report.compare import compare

    print(compare(args.results, region=args.region, metrics=args.metrics), end="")
