#!/bin/sh
# Create .venv and install ruac into it. Chooses the torch build by what it finds and says so.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then "$python" -m venv .venv; fi
pip=".venv/bin/python -m pip --disable-pip-version-check -q"
if .venv/bin/python -c 'import ruac, sys; sys.exit(0)' 2>/dev/null && [ .venv/installed -nt pyproject.toml ]; then
    echo "setup: .venv is up to date"
    exit 0
fi
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; then
    echo "setup: found an NVIDIA GPU, installing the newest torch and torchvision"
    torch="torch torchvision"
else
    echo "setup: found no NVIDIA GPU, installing torch 2.13.0 and torchvision 0.28.0 for the CPU"
    # The pair is pinned together: torchvision alone would pull in a newer torch with its CUDA packages.
    torch="torch==2.13.0 torchvision==0.28.0"
fi
first=${torch%% *}
$pip install "setuptools>=77" wheel "$first"
# sam2 is built from source against the torch just installed, without its CUDA extension.
SAM2_BUILD_CUDA=0 $pip install --no-build-isolation $torch -e ".[dev]"
touch .venv/installed
echo "setup: done"
