"""The stored clicks of one sweep, repeated in another."""

from dataclasses import replace

import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.protocol import ProtocolConfig


def test_replayed_clicks_are_the_stored_ones_and_give_the_same_rows(
    config, finished, tmp_path, sweep, assert_same_results
):
    replayed = replace(
        config, replay=f"{finished}:vanilla", protocol=ProtocolConfig(clicks=2, next_click="replay"), panels=0
    )
    assert_same_results(sweep(replayed), finished)
    fewer = replace(
        replayed, out=str(tmp_path / "fewer"), protocol=ProtocolConfig(clicks=1, next_click="replay"), limit=2
    )
    ours = pd.read_parquet(sweep(fewer) / "objects.parquet")
    theirs = pd.read_parquet(finished / "objects.parquet")
    for row in ours.itertuples():
        same = theirs[(theirs.domain == row.domain) & (theirs.image == row.image) & (theirs.object == row.object)]
        assert row.points.tolist() == same.points.iloc[0][:2].tolist()


@pytest.mark.parametrize(
    ("spec", "fields", "complaint"),
    [
        ("{finished}:nobody", {}, "no model 'nobody'"),
        ("{finished}/nowhere:vanilla", {}, "FOLDER:MODEL of a finished sweep"),
        ("{finished}:vanilla", {"clicks": 3}, "has 2 clicks, fewer than protocol.clicks=3"),
        ("{finished}:vanilla", {"box": True}, "protocol.box=False"),
    ],
)
def test_clicks_that_cannot_be_replayed(config, finished, spec, fields, complaint, sweep):
    protocol = ProtocolConfig(**({"clicks": 2, "next_click": "replay"} | fields))
    with pytest.raises(RuacError, match=complaint):
        sweep(replace(config, replay=spec.format(finished=finished), protocol=protocol))


def test_replay_needs_the_clicks_of_every_object(config, finished, sweep):
    protocol = ProtocolConfig(clicks=2, next_click="replay")
    with pytest.raises(RuacError, match=r"no clicks for first/"):  # the stored sweep has three images
        sweep(replace(config, replay=f"{finished}:vanilla", protocol=protocol, limit=4))
