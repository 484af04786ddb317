"""Print a sweep as a table."""

from __future__ import annotations

from ruac.cli.parser import verb_parser

EXAMPLE = "ruac table runs/sweep --metrics auroc ece --latex"


def main(argv: list[str], prog: str | None = None) -> None:
    parser = verb_parser(__doc__, EXAMPLE, prog)
    parser.add_argument("results", help="result folder of a sweep")
    parser.add_argument("--scores", nargs="+", metavar="MODEL.SCORE", help="default: the first score of each model")
    parser.add_argument("--baseline", metavar="MODEL.SCORE", help="tested against (default: the first of --scores)")
    parser.add_argument("--metrics", nargs="+", help="columns (default: J&F, ECE, AUROC, AURC)")
    parser.add_argument("--region", default="band")
    parser.add_argument("--latex", action="store_true", help="LaTeX with booktabs instead of Markdown")
    args = parser.parse_args(argv)

    from ruac.evaluation.report.table import METRICS, domain_table, to_latex, to_markdown

    table = domain_table(
        args.results, metrics=args.metrics or METRICS, region=args.region, scores=args.scores, baseline=args.baseline
    )
    print((to_latex if args.latex else to_markdown)(table), end="")
