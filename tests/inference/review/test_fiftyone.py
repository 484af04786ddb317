"""The dataset folder for FiftyOne, read by json and numpy alone, and by FiftyOne's own importer."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from ruac.base.errors import RuacError
from ruac.inference.review.fiftyone import write_fiftyone
from ruac.inference.review.queue import read_queue


@pytest.fixture(scope="module")
def dataset(predicted, tmp_path_factory):
    out = tmp_path_factory.mktemp("fiftyone")
    write_fiftyone(read_queue(predicted.folder), out, pictures=predicted.pictures)
    return out


def pasted(detection, mask, size):
    """The mask of a detection in the whole picture."""
    height, width = size
    x, y = round(detection["bounding_box"][0] * width), round(detection["bounding_box"][1] * height)
    whole = np.zeros(size, bool)
    whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    return whole


def test_masks_risk_and_maps(dataset, predicted):
    samples = json.loads((dataset / "samples.json").read_text())["samples"]
    queue = read_queue(predicted.folder)
    assert [sample["rank"] for sample in samples] == [1, 2, 3, 4]
    assert [sample["risk"] for sample in samples] == [picture.risk for picture in queue.pictures]
    for sample, picture in zip(samples, queue.pictures, strict=True):
        assert Image.open(sample["filepath"]).size == picture.size[::-1]
        for detection, each in zip(sample["predictions"]["detections"], picture.objects, strict=True):
            mask = np.load(io.BytesIO(zlib.decompress(base64.b64decode(detection["mask"]["$binary"]["base64"]))))
            assert (pasted(detection, mask, picture.size) == predicted.masks[picture.file, each.id]).all()
        assert ("heatmap" in sample) == (picture.file in predicted.uncertainty)
    ids = [each["_id"]["$oid"] for sample in samples for each in sample["predictions"]["detections"]]
    assert len(set(ids)) == 4
    assert "heatmap" not in samples[0]


def test_fiftyone_reads_it(dataset, predicted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))  # where FiftyOne makes its folders
    fiftyone = pytest.importorskip("fiftyone", reason="needs fiftyone")
    importer = fiftyone.types.FiftyOneDataset().get_dataset_importer_cls()(str(dataset))
    assert importer._is_legacy_format_data()  # what FiftyOne asks before it chooses a reader
    importer = importer._to_legacy_importer()
    with importer:
        samples = list(importer)
    queue = read_queue(predicted.folder)
    for sample, picture in zip(samples, queue.pictures, strict=True):
        assert sample.risk == picture.risk
        detections = [] if sample.predictions is None else sample.predictions.detections
        for detection, each in zip(detections, picture.objects, strict=True):
            assert detection.label == each.kind
            assert detection.risk == each.risk
            assert detection.confidence == each.numbers["reliability"]
            assert (pasted(detection, detection.mask, picture.size) == predicted.masks[picture.file, each.id]).all()
        if picture.file in predicted.uncertainty:
            low, high = sample.heatmap.range
            values = (sample.heatmap.get_map() - low) / (high - low)
            np.testing.assert_allclose(values, predicted.uncertainty[picture.file], atol=0.51 / 65535)


def test_pictures_that_are_missing_or_changed(predicted, tmp_path):
    queue = read_queue(predicted.folder)
    with pytest.raises(RuacError, match=r"d\.png: cannot be read.*expected the folder that was predicted"):
        write_fiftyone(queue, tmp_path / "out", pictures=tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "d.png")
    with pytest.raises(RuacError, match=r"d\.png: has changed since"):
        write_fiftyone(queue, tmp_path / "out", pictures=tmp_path)
