"""``ruac benchmark`` as a script: tools/benchmark.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.benchmark import main

if __name__ == "__main__":
    run_tool(main)
