"""Pictures are split whole, by a hash of their ids."""

import pytest

from ruac.base.errors import RuacError
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset
from ruac.fitting.splits import split_images


@pytest.fixture
def dataset(coco_folder):
    return open_dataset(coco_folder)  # eight pictures


def ids(part):
    return {record.id for record in part.records}


def test_no_picture_is_on_both_sides(dataset):
    split = split_images(dataset, images=0, held_out=0.25, seed=0)
    assert (len(split.fit), len(split.held_out)) == (6, 2)
    assert not ids(split.fit) & ids(split.held_out)
    assert ids(split.fit) | ids(split.held_out) == {record.id for record in dataset.records}
    for part in (split.fit, split.held_out):
        assert [part[n].record.id for n in range(len(part))] == [record.id for record in part.records]
        assert part.record() == {"images": len(part), "sha256": dataset_hash(part)}
    assert split.fit.record()["sha256"] != split.held_out.record()["sha256"]


def test_the_seed_decides_and_a_smaller_number_takes_some_of_the_same(dataset):
    first, again, other = (split_images(dataset, images=6, held_out=0.0, seed=seed) for seed in (0, 0, 1))
    assert ids(first.fit) == ids(again.fit)
    assert ids(first.fit) != ids(other.fit)
    assert ids(split_images(dataset, images=4, held_out=0.0, seed=0).fit) < ids(first.fit)


def test_too_few_pictures_say_how_many_are_needed(dataset):
    with pytest.raises(RuacError, match="3 images to calibrate on and 1 held out, expected at least 4"):
        split_images(dataset, images=4, held_out=0.2, seed=0)
    assert len(split_images(dataset, images=4, held_out=0.0, seed=0).held_out) == 0
