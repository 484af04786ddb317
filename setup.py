"""What pyproject.toml cannot say: configs/ and checkpoints/ of the checkout are ruac/assets/ in a wheel."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
ASSETS = [
    path.relative_to(ROOT)
    for top in ("configs", "checkpoints")
    for path in sorted([ROOT / top, *(ROOT / top).rglob("*/")])
    if path.is_dir() and any(file.is_file() for file in path.iterdir())
]
NAMES = {"ruac.assets." + ".".join(path.parts): path.as_posix() for path in ASSETS}

setup(
    packages=[*find_packages(include=["ruac", "ruac.*"]), *NAMES],
    package_dir=NAMES,
    package_data={name: ["*.yaml", "*.md", "*.json", "*.safetensors"] for name in NAMES},
)
