#!/bin/sh
# Set everything up and run the tests; arguments go to pytest.
set -eu
cd "$(dirname "$0")/.."
sh tools/setup.sh
# One thread per test process: spinning threads slow each other down many times.
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE exec .venv/bin/python -m pytest -q -n 2 "$@"
