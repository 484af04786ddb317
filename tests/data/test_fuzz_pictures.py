"""Damaged pictures and maps of object numbers."""

import io
import struct
import zlib

import numpy as np
import pytest
from fuzzing import damaged, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ruac.base.errors import RuacError
from ruac.data.domains.maps import components, read_binary
from ruac.data.id_masks import read_ids, read_objects, values_in
from ruac.data.sample import image_size, read_image, read_list

pytestmark = pytest.mark.filterwarnings("ignore")


def encoded(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream.getvalue()


GREY = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16) // 40
FILES = [
    encoded(GREY, "PNG"),
    encoded(GREY.astype(np.uint16) * 5000, "PNG"),
    encoded(GREY, "PNG", compress_level=0),
    encoded(np.repeat(GREY[..., None], 4, 2) * 60, "PNG"),
    encoded(GREY, "JPEG"),
    encoded(GREY, "BMP"),
    encoded(GREY.astype(np.int32) * 70000, "TIFF"),
    encoded(GREY, "GIF"),
    encoded(np.repeat(GREY[..., None], 3, 2), "WEBP"),
]


@fuzzed
@given(content=st.sampled_from(FILES).flatmap(damaged), end=st.sampled_from([".png", ".jpg", ".tif"]))
def test_fuzz_pictures(tmp_path_factory, content, end):
    path = tmp_path_factory.getbasetemp() / f"fuzzed{end}"
    path.write_bytes(content)
    for read in (image_size, read_image, read_ids, read_objects, read_binary, components):
        found = survives(read, path, names=path)
        if read in (read_ids, read_objects) and found is not None and found.size < 1 << 20:
            survives(values_in, found)


@fuzzed
@given(content=st.one_of(damaged("eins\nzwei\n".encode("utf-16")), damaged("ä\nb\n".encode())))
def test_fuzz_lists(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    path.write_bytes(content)
    survives(read_list, path, names=path)


def png(width, height):
    """A PNG that claims a size and holds nothing."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", [read_image, read_ids, read_binary, components])
def test_a_claimed_size_is_refused_before_anything_is_decoded(tmp_path, read):
    path = tmp_path / "claims.png"
    path.write_bytes(png(1 << 20, 1 << 20))
    with pytest.raises(RuacError, match=r"claims\.png: has 1099511627776 pixels, expected at most"):
        read(path)


@pytest.mark.parametrize("value", [-1, 1 << 16, 1 << 30])
def test_object_numbers_beyond_16_bit_are_refused_before_they_are_counted(tmp_path, value):
    path = tmp_path / "ids.png"
    path.write_bytes(encoded(np.full((4, 4), value, np.int32), "TIFF"))
    with pytest.raises(RuacError, match=r"ids\.png: has values from .* expected object numbers of 16 bit"):
        read_ids(path)


def test_a_program_is_no_picture_whatever_its_name(tmp_path):
    path = tmp_path / "page.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(RuacError, match=r"page\.png: cannot be read as an image"):
        read_image(path)
