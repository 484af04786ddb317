"""The order of a review queue, and what is said of folders that are none."""

import json
import shutil

import pytest

from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.inference.review.queue import read_queue
from ruac.inference.save import INDEX


def test_the_riskiest_come_first(predicted):
    queue = read_queue(predicted.folder)
    assert [picture.file for picture in queue.pictures] == ["d.png", "e.png", "sub/c.png", "a b.png"]
    assert [picture.risk for picture in queue.pictures] == pytest.approx([1, 1, 0.7, 0.4])
    assert [each.id for each in queue.pictures[3].objects] == [2, 1]
    assert [each.risk for each in queue.pictures[3].objects] == pytest.approx([0.4, 0.1])
    assert [picture.empty for picture in queue.pictures] == [0, 1, 0, 0]
    assert queue.unanswered == ["y.png", "z.png"]
    assert queue.kinds == ["cat & <dog>", "object"]
    for picture in queue.pictures:
        for each in picture.objects:
            assert (each.mask == predicted.masks[picture.file, each.id]).all()


def test_what_is_safe_is_named(predicted):
    queue = read_queue(predicted.folder, min_risk=0.5)
    assert [picture.file for picture in queue.pictures] == ["d.png", "e.png", "sub/c.png"]
    assert queue.safe == ["a b.png"]
    with pytest.raises(RuacError, match="min-risk: 2"):
        read_queue(predicted.folder, min_risk=2)


def test_a_folder_that_is_none(predicted, tmp_path):
    with pytest.raises(RuacError, match=r"predictions\.json: not found; expected a finished folder"):
        read_queue(tmp_path)
    folder = tmp_path / "answers"
    shutil.copytree(predicted.folder, folder)
    path = folder / "sub" / "c.png.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"picture": {"sha256": "0"}}))
    with pytest.raises(RuacError, match=r"c\.png\.json: answers another picture"):
        read_queue(folder)
    content["objects"][0]["segmentation"]["size"] = [3, 3]
    path.write_text(json.dumps(content))
    with pytest.raises(RuacError, match=r"c\.png\.json: object 1: RLE size"):
        read_queue(folder)
    path.unlink()
    with pytest.raises(RuacError, match=r"c\.png\.json: not found; run ruac predict again"):
        read_queue(folder)
    (folder / INDEX).write_text('{"format": 1}')
    with pytest.raises(RuacError, match=r"predictions\.json: expected a list of ruac predict"):
        read_queue(folder)


@pytest.mark.parametrize("tool", ["label-studio", "cvat", "fiftyone"])
def test_the_verb(predicted, tmp_path, capsys, tool):
    extra = ["--pictures", str(predicted.pictures)] if tool == "fiftyone" else []
    words = ["review-queue", str(predicted.folder), "--to", tool, "--out"]
    for place in ("one", "two"):
        main([*words, str(tmp_path / place), "--min-risk", "0.5", *extra])
    out = capsys.readouterr().out
    assert "3 pictures, 1 below the risk 0.5 left out\nriskiest: d.png (1.00)" in out
    assert "not in the queue, without an answer: y.png" in out
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / n).rglob("*.*") if p.is_file()} for n in ("one", "two"))
    assert len(one) >= 2
    assert one == two
    with pytest.raises(SystemExit) as stopped:
        main([*words, str(tmp_path / "three"), *([] if extra else ["--pictures", "x"])])
    assert stopped.value.code == 2
    assert "--pictures: expected with --to fiftyone, and with no other" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()
