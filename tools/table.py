"""Print a sweep as a table: tools/table.py RESULTS [--scores MODEL.SCORE ...] [--metrics auroc ece] [--latex]"""

import argparse

from ruac.base.errors import run_tool
from ruac.evaluation.report.table import METRICS, domain_table, to_latex, to_markdown


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="result folder of a sweep")
    parser.add_argument("--scores", nargs="+", metavar="MODEL.SCORE", help="default: the first score of each model")
    parser.add_argument("--baseline", metavar="MODEL.SCORE", help="tested against (default: the first of --scores)")
    parser.add_argument("--metrics", nargs="+", default=METRICS)
    parser.add_argument("--region", default="band")
    parser.add_argument("--latex", action="store_true", help="LaTeX with booktabs instead of Markdown")
    args = parser.parse_args(argv)
    table = domain_table(
        args.results, metrics=args.metrics, region=args.region, scores=args.scores, baseline=args.baseline
    )
    print((to_latex if args.latex else to_markdown)(table), end="")


if __name__ == "__main__":
    run_tool(main)
