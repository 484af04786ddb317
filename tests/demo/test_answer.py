"""Answers of the demo: as the predictor's own, with bounds, verdict and suggestion, for every model and look."""

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.demo.answer import MODELS, Models
from ruac.demo.gallery import picture
from ruac.demo.session import Session


@pytest.fixture(scope="module")
def models():
    return Models("cpu")


@pytest.fixture
def session():
    return Session().showing(picture("things on a ground")).clicked(190, 200, 1)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_fits(models, name):
    """A model that changes needs its fits again: see ruac/demo/fits/README.md."""
    for looks in ((), ("zoom",)):
        own = name == "nano_scale" and not looks  # beside the model, fitted on all of source validation
        assert models.bounds(name, looks).images == (307 if own else 60)
        assert models.predictor(name).reliability.reader(list(looks)) is not None


def test_an_answer(models, session):
    shown = models.ask(session)
    predictor = models.predictor("nano")
    predictor.set_image(session.picture)
    own = predictor.predict([(190, 200)], [1])
    assert (shown.mask == own.masks[0]).all()
    np.testing.assert_array_equal(shown.uncertainty, own.uncertainty[0])
    assert shown.predicted_iou == pytest.approx(float(own.scores[0]))
    assert (shown.inner <= shown.outer).all()
    assert 0 < shown.inner.sum() < shown.mask.sum() < shown.outer.sum()
    assert shown.suggestion is not None


def test_alpha_risk_and_look_act(models, session):
    wide, narrow = (models.ask(session.set_to(alpha=alpha)) for alpha in (0.05, 0.3))
    assert wide.outer.sum() > narrow.outer.sum()
    assert wide.inner.sum() < narrow.inner.sum()
    reader = models.predictor("nano").reliability.reader([])
    for risk in (0.05, 0.15, 0.25, 0.35):
        shown = models.ask(session.set_to(risk=risk))
        assert shown.accepted == (shown.reliability >= reader.threshold_for(risk))
    assert not models.ask(session.set_to(risk=0)).accepted
    looked = models.ask(session.set_to(look=True))
    assert (looked.uncertainty != wide.uncertainty).any()


def test_each_click_sees_the_mask_before_and_order_of_asking_does_not_matter(models, session):
    three = session.clicked(20, 20, 0).clicked(200, 230, 1)
    straight = models.ask(three)
    fresh = Models("cpu")
    fresh.ask(session)
    fresh.ask(session.set_to(look=True))
    again = fresh.ask(three)
    np.testing.assert_array_equal(straight.uncertainty, again.uncertainty)
    predictor = models.predictor("nano")
    predictor.set_image(session.picture)
    logits = None
    for count in (1, 2, 3):
        own = predictor.predict(three.points[:count], three.labels[:count], mask_input=logits)
        logits = own.logits[0]
    assert (straight.mask == own.masks[0]).all()


def test_nothing_asked_and_what_cannot_be(models, session):
    assert models.ask(Session()) is None
    assert models.ask(session.cleared()) is None
    with pytest.raises(RuacError, match="model 'huge': expected one of nano, nano_scale"):
        models.ask(session.set_to(model="huge"))
    with pytest.raises(RuacError, match="alpha"):
        models.ask(session.set_to(alpha=0.001))  # 60 pictures promise no such thing
