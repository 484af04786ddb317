"""What tests of whole sweeps share: two models, two tiny domains, and one finished sweep over them."""

import numpy as np
import pandas as pd
import pytest

from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.sweep import chunks, opened
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.runner import run_sweep

load_models = opened.load_models
loaded = {}


def load_once(config, device):
    """Building a backbone takes longer than a sweep of three images."""
    if repr(config.models) not in loaded:
        loaded[repr(config.models)] = load_models(config, device)
    return loaded[repr(config.models)]


def config_for(shelf, out):
    """Three images per domain."""
    return SweepConfig(
        models=[
            ModelConfig("vanilla", backbone=str(shelf / "backbone.yaml")),
            ModelConfig("ruac", export=str(shelf / "head")),
        ],
        domains=[str(shelf / "domains")],
        out=str(out),
        limit=3,
        cpu=True,
        panels=1,
        protocol=ProtocolConfig(clicks=2),
    )


@pytest.fixture
def config(shelf, tmp_path, monkeypatch, fresh_accelerator):
    monkeypatch.setattr(chunks, "SAVE_SECONDS", 0)
    monkeypatch.setattr(chunks, "SAVE_SHARE", 0)  # after every image
    monkeypatch.setattr(opened, "load_models", load_once)
    return config_for(shelf, tmp_path / "out")


@pytest.fixture(scope="session")
def finished(shelf, tmp_path_factory):
    """An uninterrupted sweep, for others to be compared with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "load_models", load_once)
        return run_sweep(config_for(shelf, tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture(scope="session")
def sweep():
    """Check a config and run it, as tools/sweep.py does."""

    def checked(config):
        config.validate()
        return run_sweep(config)

    return checked


@pytest.fixture(scope="session")
def assert_same_results():
    def check(ours, theirs):
        assert (ours / "domains.csv").read_bytes() == (theirs / "domains.csv").read_bytes()
        pd.testing.assert_frame_equal(
            pd.read_parquet(ours / "objects.parquet"), pd.read_parquet(theirs / "objects.parquet")
        )
        names = sorted(path.name for path in (ours / "sums").iterdir())
        assert names == sorted(path.name for path in (theirs / "sums").iterdir())
        for name in names:
            with np.load(ours / "sums" / name) as a, np.load(theirs / "sums" / name) as b:
                for part in a.files:
                    np.testing.assert_array_equal(a[part], b[part])

    return check
