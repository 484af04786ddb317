"""Whatever the predictor is given: an answer without nan, or a `RuacError`."""

import numpy as np
import pytest
import torch
from builders import with_head
from fuzzing import EXAMPLES, NUMBERS, VALUES, fuzzed, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ruac.base.errors import RuacError
from ruac.inference.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")

HEIGHT, WIDTH = 20, 30
PLACES = st.one_of(st.floats(-2, 32, width=32), st.integers(0, 20), NUMBERS)
POINTS = st.one_of(
    st.lists(st.lists(PLACES, min_size=2, max_size=2), max_size=3),
    arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=3), elements=st.floats(0, 20, width=32)),
    VALUES,
)
LABELS = st.one_of(st.lists(st.sampled_from([0, 1, -1, 2, 3, 0.5, True]), max_size=3), VALUES)
BOXES = st.one_of(st.lists(PLACES, min_size=4, max_size=4), VALUES)
MASKS = st.one_of(
    st.none(),
    st.sampled_from([-1e4, 0.0, 1e4, 1e300, float("nan")]).map(lambda value: np.full((1, 16, 16), value)),
    VALUES,
)


@pytest.fixture(scope="module")
def predictor(make_nano):
    predictor = Predictor(with_head(make_nano()), device="cpu")
    predictor.set_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return predictor


@fuzzed
@given(
    asked=st.one_of(
        st.fixed_dictionaries({"point_coords": POINTS, "point_labels": LABELS}),
        st.fixed_dictionaries({"box": BOXES}),
        st.fixed_dictionaries({}, optional={"point_coords": POINTS, "point_labels": LABELS, "box": BOXES}),
        st.fixed_dictionaries({"mask_input": MASKS, "box": st.one_of(st.none(), BOXES)}),
    ),
    flags=st.fixed_dictionaries(
        {}, optional={name: st.booleans() for name in ("multimask_output", "normalize_coords", "decomposed", "correct")}
    ),
)
def test_fuzz_prompts_of_a_picture(predictor, asked, flags):
    found = survives(lambda: predictor.predict(**asked, **flags))
    if found is not None:
        assert found.masks.shape[-2:] == (HEIGHT, WIDTH)
        for part in (found.scores, found.probability, found.uncertainty, found.logits):
            assert np.isfinite(part).all()


@pytest.mark.parametrize(
    "asked",
    [
        {"point_coords": [[3, 10**400]], "point_labels": [1]},
        {"point_coords": [[3, 3]], "point_labels": [10**400]},
        {"box": [0, 0, 3, 10**400]},
        {"mask_input": np.full((1, 16, 16), 1e300)},
    ],
)
def test_numbers_that_no_float_holds_are_refused(predictor, asked):
    with pytest.raises(RuacError, match=list(asked)[-1] if "point_labels" not in asked else "point_"):
        predictor.predict(**asked)


SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)
PICTURES = st.one_of(
    arrays.arrays(st.sampled_from([np.uint8, np.int16, np.float32, np.bool_]), SHAPES),
    arrays.arrays(np.uint8, st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([1, 3, 4]))),
    arrays.arrays(np.float32, st.tuples(st.sampled_from([1, 3]), st.integers(0, 4), st.integers(0, 4))).map(
        torch.from_numpy
    ),
    st.builds(
        Image.new,
        st.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"]),
        st.tuples(st.integers(0, 5), st.integers(0, 5)),
    ),
    VALUES,
)


@settings(fuzzed, max_examples=min(EXAMPLES, 10_000))
@given(picture=PICTURES)
def test_fuzz_pictures_of_a_predictor(predictor, picture):
    before = predictor._pictures
    try:
        survives(predictor.set_image, picture, names="")
    finally:
        predictor._pictures = before
