"""Download of official checkpoints: resumable, and not in place before length and SHA-256 are right."""

import errno
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ruac.backbone.names import BASE_URL, Official
from ruac.base.errors import RuacError
from ruac.base.files import sha256

_TIMEOUT = (10, 60)  # seconds: to connect, between two chunks
CHUNK = 1 << 20


def fetch(entry: Official, folder: str | Path, *, base_url: str = BASE_URL) -> Path:
    """Download `entry` from `base_url` into `folder` and return its path; nothing is sent if it is there already.

    An interrupted download stays beside it as ``.part`` and is continued by the next call, if the server can.

    Raises `RuacError` when the address cannot be reached (saying where to put a file fetched by hand), the server
    refuses or sends another length, the download is interrupted, the disk is full, or the hash is wrong.
    """
    target = Path(folder) / entry.file
    if target.exists():
        if problem := _problem(target, entry):
            raise RuacError(f"{target}: {problem}; remove it and fetch again")
        return target
    part = target.with_name(target.name + ".part")
    url = f"{base_url.rstrip('/')}/{entry.file}"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _complete(part, entry, url=url, target=target)
        if problem := _problem(part, entry):
            part.unlink()  # a wrong file cannot be continued
            raise RuacError(f"{url}: the download was discarded: {problem}")
        part.replace(target)
    except OSError as error:
        reason = "no free disk space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        raise RuacError(f"{part}: cannot be written: {reason}") from error
    return target


def _problem(path: Path, entry: Official) -> str | None:
    length = path.stat().st_size
    if length != entry.bytes:
        return f"{length} bytes, expected {entry.bytes}"
    found = sha256(path)
    return None if found == entry.sha256 else f"SHA-256 {found}, expected {entry.sha256}"


def _complete(part: Path, entry: Official, *, url: str, target: Path) -> None:
    """Bring `part` to its full length, continuing where it ends."""
    done = part.stat().st_size if part.exists() else 0
    if done == entry.bytes:
        return
    if done > entry.bytes:
        part.unlink()
        done = 0
    # Without "identity" the lengths would be those of a compressed stream.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            done = _start(response, done, entry, url)
            _receive(response, part, done, entry)
    except (requests.ConnectionError, requests.Timeout) as error:
        if part.exists() and part.stat().st_size > done:
            raise RuacError(_interrupted(part, entry, url)) from error
        raise RuacError(
            f"{url}: cannot be reached (no network?); fetch it by hand and put it at {target} ({entry.bytes} bytes)"
        ) from error
    except requests.exceptions.ChunkedEncodingError as error:
        raise RuacError(_interrupted(part, entry, url)) from error
    except requests.RequestException as error:
        raise RuacError(f"{url}: cannot be fetched: {error}") from error
    if part.stat().st_size < entry.bytes:
        raise RuacError(_interrupted(part, entry, url))


def _start(response: requests.Response, done: int, entry: Official, url: str) -> int:
    """Check what the server offers; the offset in the file at which its answer begins."""
    if response.status_code == 206:
        expected = f"bytes {done}-{entry.bytes - 1}/{entry.bytes}"
        found = response.headers.get("Content-Range", "")
        if found != expected:
            raise RuacError(f"{url}: the server offers the range {found!r}, expected {expected!r}")
        return done
    if response.status_code != 200:
        raise RuacError(f"{url}: the server answers {response.status_code} {response.reason}")
    length = response.headers.get("Content-Length", str(entry.bytes))
    if length != str(entry.bytes):
        raise RuacError(f"{url}: the server offers {length} bytes, expected {entry.bytes}: not this checkpoint")
    return 0  # a server that ignores Range sends the whole file


def _receive(response: requests.Response, part: Path, done: int, entry: Official) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    with progress, part.open("ab" if done else "wb") as stream:
        task = progress.add_task(entry.file, total=entry.bytes, completed=done)
        for chunk in response.iter_content(CHUNK):
            stream.write(chunk)
            progress.advance(task, len(chunk))


def _interrupted(part: Path, entry: Official, url: str) -> str:
    return f"{url}: interrupted after {part.stat().st_size} of {entry.bytes} bytes; run again to continue"
