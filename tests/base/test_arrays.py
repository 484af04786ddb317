import io

import numpy as np
import pytest

from ruac.base.arrays import narrowed, save_arrays


def test_what_is_saved_is_read_back():
    arrays = {
        "counts": np.array([[0, 3], [70_000, 1]]),
        "below": np.array([-130, 100]),
        "edge": np.array([0, 2**62]),
        "empty": np.zeros((0, 3), np.int64),
        "shares": np.array([0.25, -1.5], np.float32),
        "true": np.array([True, False]),
        "name": np.array("a|b"),
    }
    stream = io.BytesIO()
    save_arrays(stream, arrays)
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as found:
        assert sorted(found.files) == sorted(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(found[name], values)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], "u1"), ([0, 256], "u2"), ([-1, 127], "i1"), ([-1, 255], "i2"), ([0, 2**40], "i8"), ([-129, 0], "i2")],
)
def test_integers_are_as_narrow_as_their_values(values, dtype):
    array = np.array(values)
    assert narrowed(array).dtype == dtype
    assert (narrowed(array) == array).all()
    assert narrowed(array.astype(float)).dtype == float
