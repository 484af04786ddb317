"""A sweep that is killed at random moments and started again gives the rows of an undisturbed one."""

from dataclasses import replace

import pytest
from killing import KILLS, killed_at_random


@pytest.mark.slow
@pytest.mark.timeout(240 + 120 * KILLS)
def test_killed_at_random_moments(config, tmp_path, sweep, assert_same_results):
    whole = sweep(config)  # what is compiled, is compiled by now

    def check(out):
        assert_same_results(out, whole)
        assert (out / "manifest.json").is_file()
        assert not list(out.rglob("*.tmp"))

    killed_at_random(lambda out: sweep(replace(config, out=str(out))), check, tmp_path / "parts", seed=4)
