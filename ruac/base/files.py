"""Files that are either whole or absent, and their hashes."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ruac.base.errors import RuacError, brief

_LEFT_OVER = re.compile(r"\..*\.(\d+)\.tmp")  # of `atomic_path` and `atomic_folder`, with the process
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to write to; rename it to `path` on success.

    On any exception the temporary file is removed and an existing `path` is left untouched.
    Raises `RuacError` when the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # it may never have been made
                temporary.unlink()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if (why := _not_writable(error, path.parent)) is not None:
            raise RuacError(f"{path}: cannot be written: {why}") from error
        if _disk_is_full(error, path.parent):
            raise RuacError(f"{path}: no free disk space, nothing was written") from error
        raise


@contextmanager
def atomic_folder(path: str | Path, *, last: str) -> Iterator[Path]:
    """Yield a temporary sibling folder to fill; its files become those of `path` on success.

    A `path` that does not exist or is empty appears whole. In any other, files are replaced one by one, `last` after
    all others, and files of other names stay. On an exception the temporary folder is removed and `path` left as it
    was. What a killed process was writing for `path` is cleared away.
    Raises `RuacError` when the disk is full or the folder cannot be written.
    """
    path = Path(path).absolute()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _explained(path):
        try:
            _clear(path.parent.glob(f".{glob.escape(path.name)}.*.tmp"))
            temporary.mkdir(parents=True)
            yield temporary
            if not path.exists() or (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
                temporary.replace(path)
            else:
                for file in sorted(temporary.iterdir(), key=lambda file: file.name == last):
                    os.replace(file, path / file.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def held(folder: str | Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold `folder`, made where it is not there, as the only run in it: the system lets go of it whatever happens.

    Clears away what killed processes were writing in it. patience: seconds to wait for workers of a killed run
    to notice. Raises `RuacError` where another run holds it, or it cannot be made.
    """
    import fcntl  # where there is none, only those who hold folders are to notice

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise RuacError(f"{folder}: cannot be written: {error.strerror}") from error
    try:
        give_up = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    raise RuacError(f"{folder}: another run is at work here") from None
                time.sleep(0.1)
        _clear(folder.rglob(".*.tmp"))
        yield
    finally:
        os.close(lock)


def _clear(paths: Iterable[Path]) -> None:
    """Remove the temporary files and folders among `paths` whose processes, on this machine, are no more."""
    for path in list(paths):
        name = _LEFT_OVER.fullmatch(path.name)
        if name is None or _lives(int(name[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether another process has that number; this one has only begun."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def at_home(path: str | Path) -> Path:
    """`path` with a leading ``~/`` replaced. Raises `RuacError` where this user has no home folder."""
    try:
        return Path(path).expanduser() if str(path).startswith("~/") else Path(path)
    except RuntimeError:
        raise RuacError(f"{path}: this user has no home folder; expected a path without ~") from None


def write_text(path: str | Path, text: str) -> None:
    """Write `text` atomically as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | Path, missing: str = "not found") -> Any:
    """What a JSON file says. Raises `RuacError` for one that is not there, saying `missing`, and for a broken one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        raise RuacError(f"{path}: {missing}") from None
    except OSError as error:
        raise RuacError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also of encoding, of thousands of digits, of thousands of brackets
        raise RuacError(f"{path}: broken JSON: {brief(error)}") from error


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _not_writable(error: Exception, folder: Path) -> str | None:
    """What the system says, or, where torch or safetensors keep it to themselves, what it would say."""
    if isinstance(error, OSError):
        return error.strerror if error.errno in _NOT_WRITABLE else None
    if not folder.is_dir() or os.access(folder, os.W_OK):
        return None
    return os.strerror(errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES)


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """torch and safetensors report it as errors of their own; then the free space decides."""
    if isinstance(error, OSError):
        return error.errno in _NO_SPACE
    return folder.is_dir() and shutil.disk_usage(folder).free < 1 << 20
