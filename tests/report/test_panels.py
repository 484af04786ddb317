"""The report's pictures: their size, their window, their colours."""

import numpy as np

from ruac.report import build_report
from ruac.report.panels import close_up, error_picture, load_panels


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
