"""The snippets of docs/predictor.md, run one after the other."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "predictor.md"


def test_every_snippet_runs(tmp_path, monkeypatch):
    picture = np.full((60, 80, 3), 60, np.uint8)
    picture[18:44, 25:58] = (210, 90, 40)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(snippets) == 6
    names: dict = {}
    for snippet in snippets:
        exec(snippet, names)
    assert names["masks"].shape == (3, 60, 80)
    assert names["answer"].epistemic is not None
    assert len(names["batch"].answers) == 2
    assert (tmp_path / "photo.json").is_file()
    assert set(names["review"].doubt) == {1}
