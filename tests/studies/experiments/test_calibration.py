"""The table of kinds: means, and domains in which one beats another."""

import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.studies.experiments.calibration import CalibrationConfig, summarise


def rows(domains, **eces):
    """One row per model, domain and region; NLL and the rest are a tenth of the ECE."""
    return pd.DataFrame(
        {"domain": d, "model": m, "region": r, "ece": e + (r == "image"), "nll": e / 10, "prr": e / 10, "auroc": e / 10}
        for m, values in eces.items()
        for d, e in zip(domains, values, strict=True)
        for r in ("image", "band")
    )


def test_means_and_wins():
    source = rows(["s"], vanilla=[0.2], temperature=[0.1])
    unseen = rows("abcde", vanilla=[0.1, 0.2, 0.3, 0.4, 0.5], temperature=[0.2, 0.1, 0.2, 0.3, 0.4])
    table = summarise(source, unseen).set_index("model")
    assert table.domains.tolist() == [5, 5]
    assert table.source_band_ece.tolist() == [0.2, 0.1]
    assert table.domains_band_ece["vanilla"] == pytest.approx(0.3)
    assert table.domains_image_ece["temperature"] == pytest.approx(1.24)
    assert table.domains_band_prr["temperature"] == pytest.approx(0.024)
    assert table.beats_vanilla.tolist() == [0, 4]
    assert table.beats_temperature.tolist() == [1, 0]
    assert 0 < table.p_vanilla["temperature"] < 1


def test_a_row_is_a_calibration_of_the_source_or_of_stressed_training_images():
    config = CalibrationConfig("src@val", ["d"], stressed="src@train", kinds=["temperature", "local_image"])
    config.validate()
    fits = config.fits()
    assert list(fits) == ["temperature", "local_image", "answer_stressed"]
    assert (fits["local_image"].kind, fits["local_image"].local.reads) == ("local", "image")
    assert {fit.fitted_on for fit in fits.values()} == {"source"}
    assert (fits["answer_stressed"].draw, fits["answer_stressed"].source) == ("stressed", "src@train")
    for fit in fits.values():
        fit.validate()
    for change, message in (({"kinds": ["local"]}, "expected 'temperature'"), ({"kinds": ["platt"]}, "'platt'")):
        with pytest.raises(RuacError, match=message):
            CalibrationConfig("s", ["d"], **change).validate()
