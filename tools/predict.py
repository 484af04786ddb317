"""``ruac predict`` as a script: tools/predict.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.predict import main

if __name__ == "__main__":
    run_tool(main)
