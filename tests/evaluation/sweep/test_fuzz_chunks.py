"""Damaged chunks of a sweep, and a sweep's folder whose files are nearly right."""

import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from fuzzing import damaged, fuzzed, json_bytes, survives
from hypothesis import given
from hypothesis import strategies as st

from ruac.base.errors import RuacError
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.results.load import corrupted_names, load_results
from ruac.evaluation.results.schema import ROW
from ruac.evaluation.sweep.chunks import Chunk, finished_images, is_finished, load_chunk, save_chunk

KEY = "key"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("chunk") / "chunks" / "d" / "a.npz"
    rows = pa.RecordBatch.from_pylist([{"domain": "d", "image": "i", "object": "0", "model": "a"}], schema=ROW)
    save_chunk(path, Chunk(["n0"], [rows], {("a", "total", "image"): ReliabilitySums()}), KEY)
    assert load_chunk(path, KEY).images == ["n0"]
    return path


def check(path):
    survives(load_chunk, path, KEY, names=path)
    survives(is_finished, path, KEY, names=path)
    survives(finished_images, path.parents[2], "d", KEY, ["n0"], names=path)


def test_fuzz_bytes_of_a_chunk(whole, tmp_path):
    content, path = whole.read_bytes(), tmp_path / "chunks" / "d" / "a.npz"
    path.parent.mkdir(parents=True)

    @fuzzed
    @given(content=damaged(content))
    def damage(content):
        path.write_bytes(content)
        check(path)

    damage()


def test_fuzz_arrays_of_a_chunk(whole, tmp_path):
    """What a zip file's own checksum would find is written anew."""
    with zipfile.ZipFile(whole) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    small = [name for name, content in parts.items() if len(content) < 100_000]
    path = tmp_path / "chunks" / "d" / "a.npz"
    path.parent.mkdir(parents=True)

    @fuzzed
    @given(name=st.sampled_from(small), data=st.data())
    def damage(name, data):
        changed = parts | {name: data.draw(damaged(parts[name]))}
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in changed.items():
                archive.writestr(each, content)
        check(path)

    damage()


def test_a_chunk_that_unpacks_to_more_than_memory_is_refused_before_that(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("ruac.base.arrays.MOST_BYTES", 1 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, key=np.array(KEY), images=np.array("[]"), rows=np.zeros(1 << 21, np.uint8))
    assert path.stat().st_size < 1 << 13
    with pytest.raises(RuacError, match=r"bomb\.npz: unreadable chunk of a sweep \(\d+ bytes unpacked, expected at"):
        load_chunk(path, KEY)


def test_what_a_library_quotes_of_a_chunk_is_cut_short(whole, tmp_path):
    path = tmp_path / "quotes.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("key.npy", b"\x93NUMPY\x01\x00\xff\x40" + b"?" * 0x40FF)  # the header is quoted as it stands
    with pytest.raises(RuacError, match=r"quotes\.npz: unreadable chunk.*delete it to redo its images$") as raised:
        load_chunk(path, KEY)
    assert len(str(raised.value)) < 600 + len(str(path))


def test_a_pickle_in_a_chunk_is_not_run(tmp_path):
    path = tmp_path / "code.npz"
    np.savez(path, key=np.array([print], dtype=object), images=np.array("[]"))
    with pytest.raises(RuacError, match=r"code\.npz: unreadable chunk.*allow_pickle=False"):
        is_finished(path, KEY)


MANIFEST = {
    "protocol": {},
    "models": [{"name": "a"}],
    "domains": [{"name": "d", "corruption": None}],
    "environment": {},
}


@fuzzed
@given(
    manifest=json_bytes(MANIFEST), table=damaged(b"domain,model,score,region,reference,ece\nd,a,total,image,False,1\n")
)
def test_fuzz_results(tmp_path_factory, manifest, table):
    folder = tmp_path_factory.getbasetemp() / "results"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "domains.csv").write_bytes(table)
    (folder / "objects.parquet").write_bytes(io.BytesIO(b"PAR1").getvalue())
    survives(load_results, folder, names=folder)
    survives(corrupted_names, folder, names=folder)


@pytest.mark.parametrize("name", [None, 3, []])
@pytest.mark.parametrize(
    ("key", "read"), [("models", load_results), ("domains", load_results), ("domains", corrupted_names)]
)
def test_a_manifest_whose_names_are_no_text_is_refused(tmp_path, key, name, read):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST | {key: [{"name": name, "corruption": None}]}))
    (tmp_path / "domains.csv").write_text("domain,model,score,region,reference,ece\nd,a,total,image,False,1\n")
    with pytest.raises(RuacError, match=rf"manifest\.json: {key}\[0\]: missing key 'name', expected a text"):
        read(tmp_path)


def test_what_is_made_nearly_right_is_right_until_the_rows(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    (tmp_path / "domains.csv").write_text("domain,model,score,region,reference,ece\nd,a,total,image,False,1\n")
    with pytest.raises(RuacError, match=r"objects\.parquet: not found"):
        load_results(tmp_path)
