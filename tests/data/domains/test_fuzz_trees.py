"""Every download with a file of it damaged, or with JSON that is nearly right: read, or refused by the file's name."""

import json
import shutil

import pytest
from fuzzing import EXAMPLES, damaged, fuzzed, json_bytes, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from native_trees import TREES

from ruac.data.domains import open_domain

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", TREES)
def test_fuzz_downloads(name, tmp_path):
    root = tmp_path / "whole"
    expected = TREES[name](root)
    assert [len(sample.masks) for sample in open_domain(name, root)] == [len(each) for each in expected.values()]
    files = sorted(path for path in root.rglob("*") if path.is_file())
    written = [path for path in files if path.suffix in (".json", ".txt", ".csv")]
    kept = {path: path.read_bytes() for path in files}

    @settings(fuzzed, max_examples=1 + EXAMPLES // 10)  # each opens a tree and reads its pictures
    @given(path=st.one_of(*[st.sampled_from(each) for each in (written, files) if each]), data=st.data())
    def check(path, data):
        content = kept[path]
        whole = path.suffix == ".json" and data.draw(st.booleans())
        path.write_bytes(data.draw(json_bytes(json.loads(content)) if whole else damaged(content)))
        try:
            survives(lambda: [sample.masks.sum() for sample in open_domain(name, root)], names=root)
        finally:
            path.write_bytes(content)

    check()
    shutil.rmtree(root)
