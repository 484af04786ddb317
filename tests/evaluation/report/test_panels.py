"""The report's pictures: their size, their window, their colours."""

import numpy as np
import pandas as pd

from ruac.evaluation.report import build_report
from ruac.evaluation.report.panels import close_up, error_picture, load_panels


def test_panels_stay_below_their_budget(results):
    folder = results / "panels"
    every, count = load_panels(folder, ["vanilla", "ruac"])
    assert len(every) == count == 9
    size = sum(panel.size for panel in every)
    smaller, _ = load_panels(folder, ["vanilla", "ruac"], budget=int(0.9 * size))
    assert len(smaller) == 9
    few, count = load_panels(folder, ["vanilla", "ruac"], budget=size // 8)
    assert 0 < len(few) < count
    assert sum(panel.size for panel in few) <= size // 8


def test_optional_domains_get_what_room_is_left_and_shrink_nothing(results):
    folder, models = results / "panels", ["vanilla", "ruac"]
    every, _ = load_panels(folder, models)
    needed = sum(panel.size for panel in every if panel.domain != "camvid")
    some, count = load_panels(folder, models, optional={"camvid"}, budget=needed + every[0].size // 2)
    assert count == len(every)
    assert some == [panel for panel in every if panel.domain != "camvid"]  # at full size
    more, _ = load_panels(folder, models, optional={"camvid"})
    assert [panel.domain for panel in more[-3:]] == ["camvid"] * 3


def test_close_up_holds_truth_and_clicks_and_is_not_blown_up_by_a_stray_answer():
    truth, stray = np.zeros((2, 400, 600), bool)
    truth[100:140, 200:260] = True
    stray[:, :] = True
    x0, y0, x1, y1 = close_up(truth, [truth, stray], np.array([[320.0, 120.0]]))
    assert x0 <= 200
    assert x1 > 320
    assert y0 <= 100
    assert y1 >= 140
    assert x1 - x0 == y1 - y0 <= 240
    assert close_up(truth * False, [truth * False], np.zeros((0, 2))) == (0, 0, 600, 400)


def test_error_picture_colors_what_is_missed_and_what_is_too_much():
    truth, mask = np.zeros((2, 4, 4), bool)
    truth[:, :2], mask[:2] = True, True
    picture = error_picture(np.full((4, 4, 3), 100, np.uint8), mask, truth).astype(int)
    missed, excess, right = picture[3, 0], picture[0, 3], picture[0, 0]
    assert missed[2] > missed[0]  # violet
    assert excess[0] > excess[2]  # orange
    assert len(set(right)) == 1


def test_a_sweep_without_pictures_is_reported(copy):
    (copy / "panels" / "index.json").write_text("[]")
    assert "kept no pictures" in build_report(copy).read_text()


def test_gallery_tells_per_object_how_much_is_wrong_and_uncertain_in_the_band(results, page):
    words = " ".join(" ".join(page.texts).split())
    own = pd.read_parquet(results / "objects.parquet").set_index(["domain", "image", "object", "model"])
    row = own.loc["leaves", "im1", "ob1", "ruac"]
    expected = f"J {row.j:.2f}, wrong {100 * row.band_error:.0f} %, uncertain {100 * row.band_uncertainty:.0f} %"
    assert expected in words.replace(" ,", ",")
    places = [
        words.index(f"{case} picture truth and clicks leaves") for case in ("Worst", "Most overconfident", "Best")
    ]
    assert places == sorted(places)


def test_an_older_sweep_without_band_columns_is_reported(copy):
    objects = pd.read_parquet(copy / "objects.parquet")
    objects.drop(columns=["band_error", "band_uncertainty"]).to_parquet(copy / "objects.parquet")
    assert "Most overconfident" in build_report(copy).read_text()
