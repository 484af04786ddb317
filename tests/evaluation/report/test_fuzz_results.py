"""Panels, sums and rows of a results folder, which may come from anyone."""

import json

import numpy as np
import pytest
from fuzzing import damaged, fuzzed, json_bytes, survives
from hypothesis import given
from hypothesis import strategies as st

from ruac.base.errors import RuacError
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.report.curves import _read_counts
from ruac.evaluation.report.panels import load_panels
from ruac.evaluation.results.load import load_results
from ruac.evaluation.sweep.replay import read_clicks

pytestmark = pytest.mark.filterwarnings("ignore")
MODELS = ["vanilla", "ruac"]


def test_fuzz_panels(copy):
    index = copy / "panels" / "index.json"
    entries = json.loads(index.read_text())[:1]
    panel = copy / entries[0]["file"]
    whole = panel.read_bytes()
    with np.load(panel) as archive:
        arrays = dict(archive)

    @fuzzed
    @given(content=st.one_of(st.just(json.dumps(entries).encode()), json_bytes(entries)), data=st.data())
    def check(content, data):
        index.write_bytes(content)
        how = data.draw(st.sampled_from(["bytes", "shapes", "whole"]))
        if how == "shapes":  # arrays that do not fit each other
            name = data.draw(st.sampled_from(sorted(arrays)))
            shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
            np.savez(panel, **arrays | {name: np.full(shape, data.draw(st.sampled_from([0, 1, np.nan, "x"])))})
        else:
            panel.write_bytes(data.draw(damaged(whole)) if how == "bytes" else whole)
        survives(load_panels, index.parent, MODELS, names=copy)

    check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../../x.npz"}, "expected a path inside its folder"),
        ({"file": "/etc/passwd"}, "expected a path inside its folder"),
        ({"domain": ["a"]}, "key 'domain': .* expected a text"),
        ({"models": "vanilla"}, "key 'models': .* expected a list of texts"),
        ({"models": [1]}, "key 'models': .* expected a list of texts"),
    ],
)
def test_a_panel_of_an_index_that_is_none_is_refused(copy, change, message):
    index = copy / "panels" / "index.json"
    entries = json.loads(index.read_text())
    entries[1] |= change
    index.write_text(json.dumps(entries))
    with pytest.raises(RuacError, match=rf"index\.json: panel 1: .*{message}"):
        load_panels(index.parent, MODELS)


def test_fuzz_sums(copy):
    path = min((copy / "sums").iterdir())
    whole = path.read_bytes()

    @fuzzed
    @given(content=damaged(whole))
    def check(content):
        path.write_bytes(content)
        survives(_read_counts, path, names=path)

    check()


def test_fuzz_rows(copy):
    path = copy / "objects.parquet"
    whole = path.read_bytes()

    @fuzzed
    @given(content=damaged(whole))
    def check(content):
        path.write_bytes(content)
        survives(load_results, copy, names=copy)
        survives(read_clicks, f"{copy}:ruac", ProtocolConfig(clicks=2), names=copy)

    check()
