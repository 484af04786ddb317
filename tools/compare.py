"""Compare sweeps of the same objects under the same protocol: tools/compare.py FOLDER[:MODEL] FOLDER[:MODEL] ...

Every further one against the first; without :MODEL, the folder's last model.
"""

import argparse

from ruac.base.errors import run_tool
from ruac.evaluation.report.compare import compare


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="FOLDER[:MODEL]")
    parser.add_argument("--metrics", nargs="+", help="columns of domains.csv (default: J&F, ECE, AUROC, AURC, PRR)")
    parser.add_argument("--region", default="band")
    args = parser.parse_args(argv)
    print(compare(args.results, region=args.region, metrics=args.metrics), end="")


if __name__ == "__main__":
    run_tool(main)
