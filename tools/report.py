"""``ruac report`` as a script: tools/report.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.report import main

if __name__ == "__main__":
    run_tool(main)
