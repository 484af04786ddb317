"""``ruac conformal`` as a script: tools/conformal.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.conformal import main

if __name__ == "__main__":
    run_tool(main)
