"""``ruac fit-reliability`` as a script: tools/fit_reliability.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fit_reliability import main

if __name__ == "__main__":
    run_tool(main)
