"""``ruac fit-context`` as a script: tools/fit_context.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.fit_context import main

if __name__ == "__main__":
    run_tool(main)
