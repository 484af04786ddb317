"""Downloads against a local server: resumed, verified, and explained when they fail."""

import hashlib
import http.server
import random
import runpy
import threading
from pathlib import Path

import pytest

from ruac.backbone import fetch as fetch_module
from ruac.backbone.fetch import fetch
from ruac.backbone.names import OFFICIAL, Official
from ruac.base.errors import RuacError

CONTENT = random.Random(0).randbytes(300_000)
ENTRY = Official("toy", "toy.yaml", "toy.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
TOOL = Path(__file__).parents[2] / "tools" / "fetch_checkpoint.py"


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` as toy.pt; `requests` records the Range header of each request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True
        self.cut = None  # close the connection after so many bytes of a body
        self.chunked = False
        self.requests: list[str | None] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        if self.path != "/toy.pt":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.ranges else 0
        body = server.content[start:]
        if start:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch_module, "CHUNK", 10_000)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_download_and_second_call_sends_nothing(server, tmp_path):
    folder = tmp_path / "new" / "folder"
    path = fetch(ENTRY, folder, base_url=f"{server.address}/")
    assert path == folder / "toy.pt"
    assert path.read_bytes() == CONTENT
    assert fetch(ENTRY, folder, base_url=server.address) == path
    assert server.requests == [None]
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("ranges", [True, False])
def test_interrupted_download_is_continued(ranges, server, tmp_path):
    server.ranges = ranges
    server.cut = 100_000
    with pytest.raises(RuacError, match=r"interrupted after 100000 of 300000 bytes; run again to continue"):
        fetch(ENTRY, tmp_path, base_url=server.address)
    assert (tmp_path / "toy.pt.part").read_bytes() == CONTENT[:100_000]
    assert not (tmp_path / "toy.pt").exists()
    server.cut = None
    assert fetch(ENTRY, tmp_path, base_url=server.address).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]
    assert not (tmp_path / "toy.pt.part").exists()


def test_length_may_be_unannounced(server, tmp_path):
    server.chunked = True
    assert fetch(ENTRY, tmp_path, base_url=server.address).read_bytes() == CONTENT


def test_complete_part_is_verified_without_a_request(server, tmp_path):
    (tmp_path / "toy.pt.part").write_bytes(CONTENT)
    assert fetch(ENTRY, tmp_path, base_url=server.address).read_bytes() == CONTENT
    assert server.requests == []


def test_part_that_is_too_long_is_started_over(server, tmp_path):
    (tmp_path / "toy.pt.part").write_bytes(CONTENT + b"x")
    assert fetch(ENTRY, tmp_path, base_url=server.address).read_bytes() == CONTENT
    assert server.requests == [None]


def test_wrong_hash_is_discarded(server, tmp_path):
    (tmp_path / "toy.pt.part").write_bytes(b"x" * 1000)
    with pytest.raises(RuacError, match=rf"discarded: SHA-256 \w{{64}}, expected {ENTRY.sha256}"):
        fetch(ENTRY, tmp_path, base_url=server.address)
    assert list(tmp_path.iterdir()) == []
    assert fetch(ENTRY, tmp_path, base_url=server.address).read_bytes() == CONTENT


def test_wrong_file_in_place_is_kept_and_named(server, tmp_path):
    path = tmp_path / "toy.pt"
    for content, problem in ((b"x" * len(CONTENT), "SHA-256"), (b"x", "1 bytes, expected 300000")):
        path.write_bytes(content)
        with pytest.raises(RuacError, match=rf"toy\.pt: {problem}.*remove it and fetch again"):
            fetch(ENTRY, tmp_path, base_url=server.address)
        assert path.read_bytes() == content
    assert server.requests == []


@pytest.mark.parametrize("start", [0, 1000])
def test_another_file_at_the_address(start, server, tmp_path):
    if start:
        (tmp_path / "toy.pt.part").write_bytes(CONTENT[:start])
    server.content = b"<html>" * 1000
    with pytest.raises(RuacError, match=r"the server offers .*expected"):
        fetch(ENTRY, tmp_path, base_url=server.address)
    assert not (tmp_path / "toy.pt").exists()


def test_not_found(server, tmp_path):
    with pytest.raises(RuacError, match=r"/sub/toy\.pt: the server answers 404 Not Found"):
        fetch(ENTRY, tmp_path, base_url=f"{server.address}/sub")


def test_no_network(server, tmp_path):
    server.server_close()
    expected = rf"/toy\.pt: cannot be reached .* put it at {tmp_path}/toy\.pt \(300000 bytes\)"
    with pytest.raises(RuacError, match=expected):
        fetch(ENTRY, tmp_path, base_url=server.address)


def test_impossible_address_and_folder(server, tmp_path):
    with pytest.raises(RuacError, match="cannot be fetched"):
        fetch(ENTRY, tmp_path, base_url="nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(RuacError, match="cannot be written"):
        fetch(ENTRY, tmp_path / "file", base_url=server.address)


def test_entry_script(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(OFFICIAL, "toy", ENTRY)
    arguments = ["--folder", str(tmp_path), "--base-url", server.address]
    monkeypatch.setattr("sys.argv", ["fetch_checkpoint.py", "toy", *arguments])
    runpy.run_path(str(TOOL), run_name="__main__")
    assert capsys.readouterr().out == f"{tmp_path}/toy.pt: SHA-256 verified\n"
    monkeypatch.setattr("sys.argv", ["fetch_checkpoint.py", "toy", "huge", *arguments])
    with pytest.raises(SystemExit) as info:
        runpy.run_path(str(TOOL), run_name="__main__")
    assert info.value.code == 2
    assert "'huge': expected one of tiny" in capsys.readouterr().err


def test_table_of_official_files():
    for size, entry in OFFICIAL.items():
        assert entry.size == size
        assert entry.file == f"sam2.1_hiera_{size}.pt"
        assert len(bytes.fromhex(entry.sha256)) == 32
