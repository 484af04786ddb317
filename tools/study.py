"""``ruac study`` as a script: tools/study.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.study import main

if __name__ == "__main__":
    run_tool(main)
