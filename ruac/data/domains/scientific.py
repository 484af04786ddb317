"""Scientific: BBBC038v1, IBD, PIDRay, PPDLS."""

from collections.abc import Iterator
from pathlib import Path

from ruac.base.errors import RuacError
from ruac.base.files import read_json
from ruac.data.domains.card import MEMORY, Card, both
from ruac.data.domains.coded import Coded, coco, labelme, labelme_size, via
from ruac.data.domains.maps import MaskFiles, paired_maps
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import files_in, folders_in, locate, pair


def _bbbc038(root: Path, split: str) -> Iterator[Picture]:
    folder = root if any(root.glob("*/masks")) else locate(root, split)  # the archive has no folder of its own
    for place in folders_in(folder):
        images, masks = files_in(place / "images", ".png"), tuple(files_in(place / "masks", ".png"))
        if len(images) != 1 or not masks:
            raise RuacError(
                f"{place}: {len(images)} images and {len(masks)} masks, expected images/*.png and masks/*.png"
            )
        yield Picture(picture_id(split, place.name), images[0], MaskFiles(masks))


def _ibd(root: Path, split: str) -> Iterator[Picture]:
    folder = locate(root, split)
    files = files_in(folder, ".json")
    if not files:
        raise RuacError(f"{folder}: no JSON file with roof polygons")
    first = read_json(files[0])
    if isinstance(first, dict) and "shapes" in first:
        for key, file, image in pair(folder, folder, mask_end=".json"):
            yield Picture(picture_id(split, f"{key}.png"), image, Coded(file, labelme, hint=labelme_size))
    else:
        listing = coco if isinstance(first, dict) and "annotations" in first else via
        for file in files:
            yield from listing(file, file.parent, split)


def _pidray(root: Path, split: str) -> Iterator[Picture]:
    file = locate(root, f"annotations/xray_test_{split}.json")
    return coco(file, file.parent.parent / split, f"test_{split}")


def _ppdls(root: Path, split: str) -> Iterator[Picture]:
    folder = locate(root, "Plant") if split == "train" else locate(root, f"Plant/{split}")
    place = f"train/{split}" if split != "train" else split
    return paired_maps(folder, folder, place, mask_end="_label.png", image_end="_rgb.png")


SCIENTIFIC = (
    Card(
        name="bbbc038",
        title="BBBC038v1 (2018 Data Science Bowl)",
        group="Scientific",
        page="https://bbbc.broadinstitute.org/BBBC038",
        licence="CC0",
        size="not known",
        version="1, stage1_train.zip",
        tree="stage1_train/ID/images/ID.png, stage1_train/ID/masks/*.png",
        rule="mask file: a nucleus",
        splits=both("stage1_train"),
        sam=(227, 10506),
        verified="the description of the competition's files, in https://github.com/ace19-dev/2018-Data-Science-Bowl "
        "(data_description.md). The real stage1_train was read: 28,986 masks",
        pictures=_bbbc038,
    ),
    Card(
        name="ibd",
        title="InstanceBuilding 2D",
        group="Scientific",
        page="https://californiachen.github.io/datasets/InstanceBuilding",
        licence="free for non-commercial use",
        size="524 + 84 images, each with a height map; about 16,000 roofs",
        version="2D annotations",
        tree="{train,val}/ with images and JSON polygons: COCO, VIA, or one labelme file per image",
        rule="polygon (or COCO annotation, or labelme shapes of one label and group_id): a roof; height maps are "
        "not read. The "
        "format of the annotations is inferred",
        splits={"ruac": ("val",), "sam1": ("train",)},
        sam=(467, 11953),
        verified=MEMORY,
        pictures=_ibd,
    ),
    Card(
        name="pidray",
        title="PIDray",
        group="Scientific",
        page="https://github.com/bywang2018/security-dataset",
        licence="academic use only",
        size="47,677 images; 3,733 in the hard test set",
        version="first release",
        tree="annotations/xray_test_hard.json, hard/*.png",
        rule="COCO annotation: a prohibited item",
        splits=both("hard"),
        sam=(3733, 8892),
        verified="public loaders, which agree on folders and files, and the authors' README for the three test sets "
        "(https://github.com/bywang2018/security-dataset)",
        pictures=_pidray,
    ),
    Card(
        name="ppdls",
        title="Plant Phenotyping Datasets, leaf segmentation",
        group="Scientific",
        page="https://www.plant-phenotyping.org/datasets-home",
        licence="see the page",
        size="120 + 165 + 62 plants",
        version="Plant_Phenotyping_Datasets",
        tree="Plant/{Ara2012,Ara2013-Canon,Tobacco}/*_rgb.png, *_label.png",
        rule="number in the label map: a leaf. sam1: Ara2012 and Tobacco only, inferred from its count of images",
        splits={"ruac": ("train",), "sam1": ("Ara2012", "Tobacco")},
        sam=(182, 2347),
        verified="public loaders for folders, endings and the number of plants in each, of which 120 + 62 is the SAM "
        "paper's; values from 0 to 20 and one 27. Plant/Ara2013-RPi exists too, and is read where it has labels: "
        "inferred. "
        "Real plants of the related CVPPP challenge were read",
        pictures=_ppdls,
    ),
)
