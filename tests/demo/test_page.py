"""The demo's page end to end: through gradio's client, in a headless browser, and what leaves the machine: nothing."""

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import urlsplit

import pytest
from PIL import Image

from ruac.demo.gallery import picture

gradio = pytest.importorskip("gradio", reason="needs the extra demo")
pytestmark = pytest.mark.slow
SET = (True, "nano", False, 0.1, 0.25)  # outlines, model, look, alpha, risk
CLICKED = "document.querySelector('#words').innerText.includes('%s click')"
CUT = (
    "[...document.querySelectorAll('#look, #bounds, #look *, #bounds *')].some(e => e.scrollWidth > e.clientWidth + 1)"
)
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def asked():
    """Hosts that this process, the server among it, looked up or connected to while the module's tests ran."""
    hosts: set[str] = set()
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watched_connect(self, address):
        if isinstance(address, tuple):
            hosts.add(address[0])
        return connect(self, address)

    def watched_look_up(host, *args, **kwargs):
        hosts.add(host if isinstance(host, str) else str(host))
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watched_connect)
        patch.setattr(socket, "getaddrinfo", watched_look_up)
        yield hosts


@pytest.fixture(scope="module")
def address(asked):
    from ruac.demo.page import serve

    app, address, _ = serve(device="cpu", block=False)
    yield address
    app.blocks.close()


@pytest.fixture(scope="module")
def client(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 120})


def test_only_this_machine_is_served(address):
    port = urlsplit(address).port
    assert urlsplit(address).hostname == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):  # a server of all addresses would answer at this one, too
        socket.create_connection(("127.0.0.2", port), timeout=5).close()


LOOKED_UP = """
import socket, sys, urllib.request
look_up = socket.getaddrinfo
def told(host, *args, **kwargs):
    print("asked", host, flush=True)
    return look_up(host, *args, **kwargs)
socket.getaddrinfo = told
from ruac import Predictor  # brings huggingface_hub before the page can say anything
from ruac.demo.page import serve
from gradio_client import Client
app, address, _ = serve(device="cpu", block=False)
urllib.request.urlopen(address).read()
Client(address, verbose=False, analytics_enabled=False)
app.blocks.close()
"""


def test_no_name_is_looked_up_from_the_first_import_on(tmp_path):
    """With an empty cache: huggingface_hub asks its hub once a day who calls, when a client writes its first header."""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    run = subprocess.run([sys.executable, "-c", LOOKED_UP], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    hosts = {line.split()[1] for line in run.stdout.splitlines() if line.startswith("asked")}
    assert hosts == {"127.0.0.1"}


def test_the_page_names_nothing_elsewhere_and_may_not_ask(address):
    with urllib.request.urlopen(address) as response:
        policy, html = response.headers["content-security-policy"], response.read().decode()
    assert "default-src 'self'" in policy
    assert not re.search(r"https?:|\*", policy)
    loads = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(https?:[^\"'>\s]+)", html)
    assert not [url for url in loads if urlsplit(url).hostname != "127.0.0.1"]
    with urllib.request.urlopen(f"{address}config") as response:
        config = json.load(response)
    assert config["analytics_enabled"] is False
    assert not config.get("stylesheets")  # fonts
    with urllib.request.urlopen(f"{address}theme.css") as response:
        assert not re.search(r"@import|url\([\"']?https?:", response.read().decode())


def test_clicks_through_the_client(client, tmp_path, asked):
    from gradio_client import handle_file

    with pytest.raises(Exception, match="no picture; choose one first"):
        client.predict("object", 5, 5, *SET, api_name="/place")
    Image.fromarray(picture("things on a ground")).save(tmp_path / "mine.png")
    left, _, words = client.predict(handle_file(str(tmp_path / "mine.png")), *SET, api_name="/upload")
    assert words == "Click on an object."
    with Image.open(left["path"] if isinstance(left, dict) else left) as drawn:
        assert drawn.size == (768, 768)
    *_, words = client.predict("object", 190, 200, *SET, api_name="/place")
    assert re.search(r"Expected IoU 0\.\d\d .*\n\nInner, mask, outer: \d+, \d+, \d+ .*\n\nNext click: \(\d+", words)
    *_, words = client.predict("background", *SET, api_name="/follow")
    assert "2 clicks" in words
    for name, settings in (("/look", ("nano", True, 0.1, 0.25)), ("/model", ("nano_scale", False, 0.2, 0.3))):
        *_, other = client.predict(True, *settings, api_name=name)
        assert "2 clicks" in other
        assert other.split("answered")[0] != words.split("answered")[0]
    *_, words = client.predict(*SET, api_name="/undo")
    assert "1 click, answered" in words
    with pytest.raises(Exception, match="outside the 384x384 picture"):
        client.predict("object", 500, 5, *SET, api_name="/place")
    *_, words = client.predict(*SET, api_name="/clear")
    assert words == "Click on an object."
    assert not [host for host in asked if not local(host)]


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, address, width, tmp_path):
    """By pointer on a desk, by touch on a phone, then by the keyboard; no request leaves, nothing is complained of."""
    phone = width < 500
    context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=phone)
    page, urls, said = context.new_page(), [], []
    page.set_default_timeout(120_000)
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.locator("#gallery img").first.click()
    page.wait_for_selector("#mask img")
    image = page.locator("#mask img")
    image.scroll_into_view_if_needed()
    middle = {"x": image.bounding_box()["width"] / 2, "y": image.bounding_box()["height"] / 2}
    (image.tap if phone else image.click)(position=middle)
    page.wait_for_function(CLICKED % 1)
    assert re.search(r"Expected IoU 0\.\d\d", page.inner_text("#words"))
    page.locator("#follow").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(CLICKED % 2)
    page.locator("#look input").focus()
    areas = page.inner_text("#words p >> nth=1")
    page.keyboard.press("Space")
    page.wait_for_function("before => document.querySelectorAll('#words p')[1].innerText != before", arg=areas)
    page.locator("#undo").click()
    page.wait_for_function(CLICKED % 1)
    assert page.locator("#doubt img").count() == 1
    assert not page.evaluate(WIDER)
    assert not page.evaluate(CUT)
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    own = urlsplit(address).netloc
    assert len(urls) > 10
    assert not [url for url in urls if urlsplit(url).scheme in ("http", "https", "ws") and urlsplit(url).netloc != own]
    assert not said
    context.close()


def local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
