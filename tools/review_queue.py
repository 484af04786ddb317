"""``ruac review-queue`` as a script: tools/review_queue.py takes the same arguments."""

from ruac.base.errors import run_tool
from ruac.cli.review_queue import main

if __name__ == "__main__":
    run_tool(main)
