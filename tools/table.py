"""Print a sweep as Markdown: tools/table.py RESULTS --scores vanilla.entropy ruac.total [--metrics auroc ece]"""

import argparse

from ruac.errors import run_tool
from ruac.report.table import markdown_table


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="result folder of a sweep")
    parser.add_argument("--scores", nargs="+", required=True, metavar="MODEL.SCORE")
    parser.add_argument("--metrics", nargs="+", default=["auroc", "ece", "aurc"])
    parser.add_argument("--region", default="band")
    args = parser.parse_args(argv)
    print(markdown_table(args.results, metrics=args.metrics, region=args.region, scores=args.scores), end="")


if __name__ == "__main__":
    run_tool(main)
