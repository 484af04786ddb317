"""``ruac calibrate`` as a script: tools/calibrate.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.calibrate import main

if __name__ == "__main__":
    run_tool(main)
