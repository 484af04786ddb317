"""Every adapter on a miniature of its data set: exactly the images, objects and pixels that were drawn."""

import shutil

import numpy as np
import pytest
from native_formats import HEIGHT, WIDTH, rect, write_image, write_json
from native_trees import TREES

from ruac.base.errors import RuacError
from ruac.data.coco import CocoFolder
from ruac.data.domains import CARDS, open_domain
from ruac.data.domains.card import GROUPS, PROTOCOLS
from ruac.data.domains.prepare import convert
from ruac.data.open import validate_dataset
from ruac.data.sample import MaskDataset

NAMES = list(CARDS)


@pytest.fixture(params=NAMES)
def tree(request, tmp_path):
    root = tmp_path / "download" / "data"
    root.mkdir(parents=True)
    return request.param, root, TREES[request.param](root)


def content(dataset):
    return {
        sample.record.id: dict(zip(sample.record.object_ids, sample.masks, strict=True))
        for sample in (dataset[index] for index in range(len(dataset)))
    }


def same(found, expected):
    assert list(found) == sorted(expected)
    for image, objects in expected.items():
        assert list(found[image]) == list(objects)
        for key, mask in objects.items():
            np.testing.assert_array_equal(found[image][key], mask, err_msg=f"{image} {key}")


def test_the_miniature_comes_out_as_it_was_drawn(tree):
    name, root, expected = tree
    dataset = open_domain(name, root)
    assert isinstance(dataset, MaskDataset)
    assert dataset.name == name
    validate_dataset(dataset)
    same(content(dataset), expected)
    for record in dataset.records:
        assert all(path.is_file() for path in record.annotations)
        assert record.annotations


def test_ids_do_not_depend_on_where_the_tree_lies(tree, tmp_path):
    name, root, expected = tree
    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    assert [record.id for record in open_domain(name, root.parent).records] == sorted(expected)
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*")) == before  # nothing is written there
    moved = shutil.copytree(root, tmp_path / "Ünïcode place")
    assert [(r.id, r.object_ids) for r in open_domain(name, moved).records] == [
        (r.id, r.object_ids) for r in open_domain(name, root).records
    ]


def test_conversion_comes_back_exactly(tree, tmp_path):
    name, root, expected = tree
    dataset = open_domain(name, root)
    convert(dataset, tmp_path / "out")
    back = CocoFolder(tmp_path / "out")
    assert [record.id for record in back.records] == [record.id for record in dataset.records]
    same(content(back), expected)
    np.testing.assert_array_equal(back[0].image, dataset[0].image)


def test_an_empty_folder_says_what_was_expected(tree, tmp_path):
    name, _, _ = tree
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RuacError, match=r"nothing.*(not found|no scene|stage1_train)"):
        open_domain(name, tmp_path / "nothing")


def test_a_truncated_image_is_named(tree):
    name, root, _ = tree
    dataset = open_domain(name, root)
    path = dataset.records[0].path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RuacError, match="cannot be read as an image") as error:
        dataset[0]
    assert str(path) in str(error.value)


def test_counts_of_what_is_left_out(tmp_path):
    TREES["trashcan"](tmp_path)
    found = open_domain("trashcan", tmp_path).found
    assert (found.listed, found.indexed, found.empty, found.objects, found.dropped) == (3, 3, 1, 4, 1)
    assert not found.sampled
    (tmp_path / "b").mkdir()
    TREES["bbbc038"](tmp_path / "b")
    found = open_domain("bbbc038", tmp_path / "b").found
    assert (found.listed, found.empty, found.objects, found.dropped) == (2, 1, 2, 2)


SAM1 = {
    "plittersdorf": ["test/testa_0001.png", "test/testb_0001.png", "train/a_0001.png", "train/b_0001.png",
                     "val/vala_0001.png", "val/valb_0001.png"],
    "doors": ["T/000003.png", "Te1/4.png", "Te2/4.png", "V/000001.png"],
    "hypersim": ["volumes/ai_001_001/scene_cam_00/frame.0000.png"],  # volume 20 is left out
    "ppdls": ["train/Ara2012/ara2012_plant001.png", "train/Tobacco/tobacco_plant001.png"],
    "ovis": ["train/ab12/img_0000002.png", "train/ab12/img_0000003.png"],
    "visor": [f"val/P01_107/P01_107_frame_000000000{n}.png" for n in (1, 2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", SAM1)
def test_the_sam_protocol_takes_other_splits(name, tmp_path):
    TREES[name](tmp_path)
    assert [record.id for record in open_domain(name, tmp_path, protocol="sam1").records] == SAM1[name]


def test_ibd_reads_coco_and_via_too(tmp_path):
    for split, key in (("val", "a"), ("train", "b")):
        write_image(tmp_path / split / f"{key}.png")
    entry = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    roof = {"id": 3, "image_id": 1, "segmentation": [[2, 3, 9, 3, 9, 8, 2, 8]]}
    write_json(tmp_path / "val/x.json", {"images": [entry], "annotations": [roof]})
    shape = {"name": "polygon", "all_points_x": [2, 9, 9, 2], "all_points_y": [3, 3, 8, 8]}
    project = {"b1": {"filename": "b.png", "regions": [{"shape_attributes": shape}]}}
    write_json(tmp_path / "train/via.json", {"_via_img_metadata": project})
    same(content(open_domain("ibd", tmp_path)), {"val/a.png": {"3": rect(2, 3, 9, 8)}})
    same(content(open_domain("ibd", tmp_path, protocol="sam1")), {"train/b.png": {"0": rect(2, 3, 9, 8)}})


def test_images_without_extension_and_other_encodings_of_accents(tmp_path):
    TREES["egohos"](tmp_path)
    image = tmp_path / "train/image/ego4d_ab_1.jpg"
    image.rename(image.with_suffix(""))
    assert open_domain("egohos", tmp_path).records[1].id == "train/ego4d_ab_1.png"
    (tmp_path / "n").mkdir()
    TREES["ndd20"](tmp_path / "n")
    image = tmp_path / "n/BELOW/Tümmler.jpg"
    image.rename(image.with_name("Tu\u0308mmler.jpg"))  # as macOS writes it
    assert len(open_domain("ndd20", tmp_path / "n")) == 2


@pytest.mark.parametrize(
    ("name", "end"), [("bbbc038", ".png"), ("ibd", ".json"), ("visor", ".json"), ("woodscape", ".json")]
)
def test_hidden_twins_beside_the_files_are_passed_over(name, end, tmp_path):
    expected = TREES[name](tmp_path)
    for path in sorted(tmp_path.rglob(f"*{end}")):
        path.with_name(f"._{path.name}").write_bytes(b"resource fork")
    (tmp_path / "stage1_train/__MACOSX").mkdir(parents=True)  # of an archive without a folder of its own
    assert [record.id for record in open_domain(name, tmp_path).records] == sorted(expected)


def test_other_parts_of_a_download_are_other_splits(tmp_path):
    TREES["gtea"](tmp_path)
    ids = [record.id for record in open_domain("gtea", tmp_path, split="GTEA_GAZE_PLUS").records]
    assert ids == ["GTEA_GAZE_PLUS/a/0001.png"]
    (tmp_path / "n").mkdir()
    TREES["ndispark"](tmp_path / "n")
    ids = [record.id for record in open_domain("ndispark", tmp_path / "n", split="validation").records]
    assert ids == ["validation/n60_1.png", "validation/n60_2.png"]


def test_suffixes_may_be_upper_case(tmp_path):
    expected = TREES["cityscapes"](tmp_path)
    for path in sorted(tmp_path.rglob("*.png")):
        path.rename(path.with_suffix(".PNG"))
    assert [record.id for record in open_domain("cityscapes", tmp_path).records] == sorted(expected)


def test_every_card_is_complete():
    assert len(CARDS) == 26
    assert sum(card.sam is not None for card in CARDS.values()) == 23
    for card in CARDS.values():
        assert card.group in GROUPS
        assert set(card.splits) == set(PROTOCOLS)
        assert all((card.title, card.licence, card.size, card.version, card.tree, card.rule, card.verified))
        assert card.page == "" or card.page.startswith("http")


def test_unknown_names_list_the_known_ones(tmp_path):
    with pytest.raises(RuacError, match=r"'mnist'.*trashcan"):
        open_domain("mnist", tmp_path)
    with pytest.raises(RuacError, match=r"protocol.*sam1"):
        open_domain("coco", tmp_path, protocol="sam2")
    with pytest.raises(RuacError, match=r"missing: folder not found.*instances_val2017"):
        open_domain("coco", tmp_path / "missing")


@pytest.mark.filterwarnings("ignore:.*is a part of")
def test_one_of_its_own_folders_will_do(tree):
    name, root, expected = tree
    first = open_domain(name, root).records[0].path.relative_to(root).parts[0]
    if (root / first).is_dir():
        assert [record.id for record in open_domain(name, root / first).records] == sorted(expected)


def test_what_is_read_instead_is_named(tmp_path):
    TREES["woodscape"](tmp_path)
    with pytest.warns(UserWarning, match=rf"rgb_images: is a part of WoodScape, read from {tmp_path}$"):
        open_domain("woodscape", tmp_path / "rgb_images")


def test_a_neighbour_is_not_taken_for_the_folder_that_was_named(tmp_path):
    TREES["woodscape"](tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuacError, match=r"empty: rgb_images not found"):
        open_domain("woodscape", tmp_path / "empty")


def test_woodscape_nested_and_with_a_file_that_is_no_annotation(tmp_path):
    expected = TREES["woodscape"](tmp_path)
    (tmp_path / "rgb_images").rename(tmp_path / "inner")
    (tmp_path / "rgb_images").mkdir()
    (tmp_path / "inner").rename(tmp_path / "rgb_images" / "rgb_images")
    write_json(tmp_path / "instance_annotations/instance_annotations/class_info.json", {"classes": []})
    assert [record.id for record in open_domain("woodscape", tmp_path).records] == sorted(expected)


def test_hypersim_as_its_archives_unpack(tmp_path):
    expected = TREES["hypersim"](tmp_path)
    (tmp_path / "evermotion_dataset" / "analysis").mkdir(parents=True)
    (tmp_path / "evermotion_dataset" / "scenes").mkdir()
    for path in list(tmp_path.glob("ai_*")):
        path.rename(tmp_path / "evermotion_dataset" / "scenes" / path.name)
    for path in list(tmp_path.glob("*.csv")):
        path.rename(tmp_path / "evermotion_dataset" / "analysis" / path.name)
    assert [record.id for record in open_domain("hypersim", tmp_path).records] == sorted(expected)


def test_labelme_shapes(tmp_path):
    """An object is a label and a group; boxes and circles have pixels, lines have none."""
    write_image(tmp_path / "val" / "1.png")
    square = [[2, 2], [8, 2], [8, 8], [2, 8]]
    shapes = [
        {"label": "roof", "group_id": 0, "points": square},
        {"label": "wall", "group_id": 0, "points": [[14, 2], [20, 2], [20, 8], [14, 8]]},
        {"label": "roof", "group_id": 1, "points": square},
        {"label": "roof", "group_id": None, "points": [[2, 10], [9, 15]], "shape_type": "rectangle"},
        {"label": "roof", "group_id": None, "points": [[20, 14], [20, 18]], "shape_type": "circle"},
        {"label": "road", "group_id": None, "points": [[2, 20], [9, 20], [9, 22]], "shape_type": "linestrip"},
    ]
    write_json(tmp_path / "val" / "1.json", {"shapes": shapes})
    dataset = open_domain("ibd", tmp_path)
    assert set(dataset.records[0].object_ids) == {"group0/roof", "group0/wall", "group1", "3", "4"}
    assert dataset.found.dropped == 1
    masks = dict(zip(dataset.records[0].object_ids, dataset[0].masks, strict=True))
    np.testing.assert_array_equal(masks["3"], rect(2, 10, 9, 15))
    assert masks["4"].sum() == pytest.approx(np.pi * 16, rel=0.15)
    assert masks["4"][14, 20]


def test_text_files_may_begin_with_a_byte_order_mark(tree):
    """As editors on Windows write JSON, CSV and lists."""
    name, root, expected = tree
    for path in root.rglob("*"):
        if path.suffix in (".json", ".csv", ".txt"):
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    same(content(open_domain(name, root)), expected)
