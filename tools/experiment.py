"""``ruac experiment`` as a script: tools/experiment.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.experiment import main

if __name__ == "__main__":
    run_tool(main)
