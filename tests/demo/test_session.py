"""What a visitor does, without a browser: sessions, places on the drawn picture, pictures and words."""

import importlib.util

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.demo.answer import Shown
from ruac.demo.draw import INNER_COLOR, LONGEST, OUTER_COLOR, draw, place_of, scale_of
from ruac.demo.gallery import PICTURES, SIDE, picture
from ruac.demo.session import Session
from ruac.demo.words import START, summary
from ruac.inference.next_click import NextClick

PICTURE = np.full((60, 120, 3), 90, np.uint8)


def disk(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:60, :120]
    return (rows - 30) ** 2 + (columns - 60) ** 2 <= radius**2


def shown_of(**changes) -> Shown:
    values = dict(mask=disk(15), inner=disk(10), outer=disk(20), predicted_iou=0.8, reliability=0.7, accepted=True)
    doubt = np.where(disk(20) & ~disk(10), 0.9, 0.1).astype(np.float32)
    suggestion = NextClick((80, 30), 0, 0.031, 0.7)
    return Shown(**values | dict(uncertainty=doubt, suggestion=suggestion, seconds=0.1) | changes)


def test_clicks_are_added_undone_and_cleared():
    start = Session().showing(PICTURE)
    two = start.clicked(10, 20, 1).clicked(119.5, 0, 0)
    assert (two.points, two.labels) == ([(10, 20), (119.5, 0)], [1, 0])
    assert two.undone().clicks == ((10, 20, 1),)
    assert start.undone().clicks == two.cleared().clicks == start.clicks == ()
    assert two.set_to(look=True).settings.looks == ("zoom",)
    assert two.set_to(look=True).clicks == two.clicks
    assert two.showing(PICTURE[:30]).clicks == ()


@pytest.mark.parametrize(
    ("session", "click", "said"),
    [
        (Session(), (1, 1, 1), "no picture"),
        (Session(PICTURE), (121, 1, 1), "outside the 120x60 picture"),
        (Session(PICTURE), (1, -1, 1), "outside"),
        (Session(PICTURE), (float("nan"), 1, 1), "outside"),
        (Session(PICTURE), (1, 1, 2), "label 2, expected 1"),
    ],
)
def test_a_click_that_cannot_be(session, click, said):
    with pytest.raises(RuacError, match=said):
        session.clicked(*click)


@pytest.mark.parametrize("size", [(60, 120), (2000, 1500), (7, 5)])
def test_a_place_on_the_drawn_picture_comes_back(size):
    big = np.zeros((*size, 3), np.uint8)
    left, _ = draw(Session(big), None)
    assert max(left.shape[:2]) == LONGEST
    for y, x in ((0, 0), (size[0] // 2, size[1] // 3), (size[0] - 1, size[1] - 1)):
        found = place_of(big, (x + 0.5) * scale_of(big) - 0.5, (y + 0.5) * scale_of(big) - 0.5)
        assert abs(np.subtract(found, (x, y))).max() <= 0.51
    last = place_of(big, left.shape[1] - 1, left.shape[0] - 1)
    Session(big).clicked(*last, 1)  # even the last drawn pixel lies in the picture


def test_outlines_lie_on_the_borders_and_can_be_left_out():
    session = Session(PICTURE)
    left, right = draw(session, shown_of(suggestion=None))
    middle, scale = left[int(30.5 * scale_of(PICTURE))], scale_of(PICTURE)
    for color, radius in ((INNER_COLOR, 10), (OUTER_COLOR, 20)):
        drawn = np.flatnonzero((middle == color).all(axis=1))
        assert set(np.round(abs(drawn / scale - 60.5))) == {radius}
    plain, _ = draw(session, shown_of(suggestion=None), bounds=False)
    assert not (plain == OUTER_COLOR).all(axis=2).any()
    certain, unsure = (right[int(30.5 * scale), int(x * scale)].astype(int) for x in (60, 78))
    assert unsure.sum() > certain.sum() + 100  # bright where in doubt


def test_clicks_and_suggestion_are_drawn():
    shown = shown_of()
    bare, _ = draw(Session(PICTURE), shown_of(suggestion=None))
    ringed, _ = draw(Session(PICTURE), shown)
    ys, xs = (bare != ringed).any(axis=2).nonzero()
    assert abs(np.mean(xs) / scale_of(PICTURE) - 80.5) < 0.5
    assert abs(np.mean(ys) / scale_of(PICTURE) - 30.5) < 0.5
    green, red = (draw(Session(PICTURE).clicked(20, 20, label), shown)[0] for label in (1, 0))
    at = (int(20 * scale_of(PICTURE)),) * 2
    assert green[at][1] > green[at][0]
    assert red[at][0] > red[at][1]


def test_words():
    session = Session(PICTURE).clicked(60, 30, 1)
    text = summary(session, shown_of())
    assert "**Accept.** Expected IoU 0.70 (SAM 2 itself says 0.80)" in text
    assert "317, 709, 1257 pixels at alpha 0.10" in text
    assert "Next click: (80, 30), background is expected there; it may raise the IoU by 0.031" in text
    assert "1 click, answered" in text
    assert "For review" in summary(session, shown_of(accepted=False))
    assert "No doubt is left" in summary(session, shown_of(suggestion=None))
    assert summary(Session(), None) == START
    assert summary(Session(PICTURE), None) != START


def test_gallery_is_always_the_same_and_read_only():
    for title in PICTURES:
        assert picture(title).shape == (SIDE, SIDE, 3)
    assert len({picture(title).tobytes() for title in PICTURES}) == len(PICTURES)
    with pytest.raises(ValueError, match="read-only"):
        picture("at night")[0, 0] = 0


def test_without_gradio_the_verb_says_what_to_install(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gradio" else find(name, *rest)
    )
    with pytest.raises(SystemExit) as stopped:
        main(["demo"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: demo: needs gradio; pip install 'ruac[demo]'\n"
