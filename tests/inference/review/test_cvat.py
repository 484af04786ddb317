"""What COCO's readers make of a queue for CVAT: pycocotools, and datumaro, on which CVAT's own importer stands."""

import json
import shutil

import pytest
from pycocotools.coco import COCO

from ruac.inference.review.cvat import ATTRIBUTES, write_cvat
from ruac.inference.review.queue import read_queue


def test_pycocotools_reads_it(predicted, tmp_path):
    queue = read_queue(predicted.folder)
    annotations, labels, order = write_cvat(queue, tmp_path)
    coco = COCO(str(annotations))
    assert [image["file_name"] for image in coco.dataset["images"]] == order.read_text().splitlines()
    assert order.read_text().splitlines() == ["d.png", "e.png", "sub/c.png", "a b.png"]
    assert len(coco.anns) == 4
    for annotation in coco.anns.values():
        file = coco.imgs[annotation["image_id"]]["file_name"]
        masks = [mask for (name, _), mask in predicted.masks.items() if name == file]
        assert any((coco.annToMask(annotation) > 0).tolist() == mask.tolist() for mask in masks)
    risks = [each["attributes"]["risk"] for each in coco.dataset["annotations"] if each["image_id"] == 4]
    assert risks == pytest.approx([0.4, 0.1])
    spec = json.loads(labels.read_text())
    assert [label["name"] for label in spec] == [each["name"] for each in coco.dataset["categories"]]
    for annotation in coco.dataset["annotations"]:
        assert set(annotation["attributes"]) - {"occluded"} == set(ATTRIBUTES)
        assert {each["name"] for each in spec[0]["attributes"]} == set(ATTRIBUTES)


def test_datumaro_reads_it(predicted, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="needs datumaro")
    queue = read_queue(predicted.folder)
    annotations, *_ = write_cvat(queue, tmp_path / "queue")
    folder = tmp_path / "coco" / "annotations"  # where datumaro looks for a file of that kind
    folder.mkdir(parents=True)
    (folder / "instances_default.json").write_text(annotations.read_text())
    shutil.copytree(predicted.pictures, tmp_path / "coco" / "images" / "default")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "coco"), "coco_instances")
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label].items]
    found = {item.id: item for item in dataset}
    assert set(found) == {"d", "e", "sub/c", "a b"}
    for picture in queue.pictures:
        item = found[picture.file.removesuffix(".png")]
        masks = [each for each in item.annotations if isinstance(each, datumaro.Mask)]
        assert len(masks) == len(picture.objects)
        for mask, each in zip(sorted(masks, key=lambda mask: mask.id), picture.objects, strict=True):
            assert (mask.image.astype(bool) == predicted.masks[picture.file, each.id]).all()
            assert names[mask.label] == each.kind
            assert mask.attributes["risk"] == pytest.approx(each.risk)
            assert mask.attributes["reliability"] == pytest.approx(each.numbers["reliability"])
