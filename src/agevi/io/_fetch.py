"""Files of a shelf: from a folder, or from a web server into the cache; every byte is checked before it is used."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agevi._checks import stack_depth
from agevi._progress import steps
from agevi.io import _files, _index
from agevi.io._files import BundleError, BundleMissingError, show

CACHE = "AGEVI_CACHE"
_TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 1 << 20


def is_url(path: Any) -> bool:
    """Whether ``path`` is an address and no path; one letter before the colon is a drive."""
    return isinstance(path, str) and len(urllib.parse.urlsplit(path).scheme) > 1 and "://" in path


def cache() -> Path:
    """The folder of what was downloaded."""
    import pooch

    return Path(os.environ.get(CACHE) or pooch.os_cache("agevi"))


def entries(shelf: str | os.PathLike[str]) -> dict[str, _index.Entry]:
    """The clocks of a shelf, a folder or an address."""
    if is_url(shelf):
        return _remote_index(str(shelf))
    folder = root(shelf)
    return _index.read(str(folder / _index.INDEX), _local(folder / _index.INDEX, _index.MAX_INDEX))


def contents(shelf: str | os.PathLike[str], entry: _index.Entry) -> tuple[Path, dict[str, bytes]]:
    """Where the clock of a shelf lies, downloaded if need be, and the bytes of its files, each as the index says."""
    folder = _downloaded(str(shelf), entry) if is_url(shelf) else root(shelf) / entry.name
    if folder.is_symlink():
        raise BundleError(f"{folder} is a link; a shelf holds its clocks itself.")
    return folder, {name: _checked(folder / name, entry) for name in entry.files}


def root(shelf: str | os.PathLike[str]) -> Path:
    """The folder of a shelf, or the standard error."""
    folder = Path(os.path.realpath(os.path.expanduser(os.fspath(shelf))))
    if not (folder / _index.INDEX).exists():
        raise BundleMissingError(
            f"{folder} is not a shelf: it has no {_index.INDEX}. Pass the folder that agevi.io.write_shelf wrote, or "
            "its address."
        )
    return folder


def _checked(path: Path, entry: _index.Entry) -> bytes:
    """A file of a clock."""
    wanted = entry.files[path.name]["size"]
    return _index.check_file(str(path), path.name, entry, _local(path, wanted))


def _local(path: Path, most: int) -> bytes:
    """A file of at most ``most`` bytes; a larger one is cut there, which its checksum shows."""
    with _files.opened(path) as file:
        return file.read(most + 1)


# --- from a web server -----------------------------------------------------------------------------------------


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a server to another address of its own, and to no other server."""

    max_redirections = 3

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise BundleError(
                f"{req.full_url} leads to another server, {show(f'{new.scheme}://{new.netloc}')}, which is not "
                "followed. Pass that address, if you trust it."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_SameHost)


def _address(shelf: str) -> str:
    """The address of the folder of a shelf, which ends with a slash."""
    parts = urllib.parse.urlsplit(shelf)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BundleError(
            f"{show(shelf)} is not an address that agevi reads; pass one with http:// or https://, or a path."
        )
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise BundleError(f"{show(shelf)} has a query, a fragment or a user; pass the plain address of the folder.")
    return shelf.removesuffix(_index.INDEX).rstrip("/") + "/"


@contextlib.contextmanager
def _answer(url: str) -> Iterator[Any]:
    """What a server answers, or the standard errors."""
    try:
        with _opener.open(
            urllib.request.Request(url, headers={"Accept-Encoding": "identity"}), timeout=_TIMEOUT
        ) as got:
            yield got
    except urllib.error.HTTPError as error:
        raise BundleMissingError(f"{url} is not there: the server says {error.code} {error.reason}.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise ConnectionError(f"{url} cannot be reached ({getattr(error, 'reason', error)}).") from None


def _blocks(url: str, most: int) -> Iterator[bytes]:
    """The bytes at an address, refused where they are more than ``most``."""
    with _answer(url) as got:
        n = 0
        while block := got.read(_BLOCK):
            n += len(block)
            if n > most:
                raise BundleError(f"{url} has more than {most:,} bytes; it was not read further, and nothing was kept.")
            yield block


def _remote_index(shelf: str) -> dict[str, _index.Entry]:
    """The index of a shelf on a web server, or the one that was read last where that cannot be reached."""
    url = _address(shelf) + _index.INDEX
    kept = cache() / f"{hashlib.sha256(url.encode()).hexdigest()[:24]}.json"
    try:
        data = b"".join(_blocks(url, _index.MAX_INDEX))
    except ConnectionError as error:
        if not kept.is_file():
            raise BundleMissingError(
                f"{error} Nothing of this shelf was downloaded before; connect to the network, or pass the folder of a "
                "copy of the shelf."
            ) from None
        warnings.warn(f"{error} The index that was read last is used.", UserWarning, stacklevel=stack_depth())
        return _index.read(str(kept), _local(kept, _index.MAX_INDEX))
    found = _index.read(url, data)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=kept.parent, suffix=_files.TEMPORARY, delete=False) as file:
        file.write(data)
    os.replace(file.name, kept)
    return found


def _downloaded(shelf: str, entry: _index.Entry) -> Path:
    """The folder of a clock in the cache, which has what the index says."""
    base = _address(shelf)
    folder = cache() / f"{entry.name}-{_key(entry)}"
    with contextlib.suppress(BundleError):
        for name in entry.files:
            _checked(folder / name, entry)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        _files.TEMPORARY, f".{entry.name}.", folder.parent, ignore_cleanup_errors=True
    ) as temporary:
        new = Path(temporary, "new")
        for name in steps(entry.files, len(entry.files), f"downloading {entry.name}", "files"):
            _retrieve(f"{base}{entry.name}/{name}", new / name, entry.files[name])
        if folder.exists():
            os.rename(folder, Path(temporary, "old"))
        try:
            os.rename(new, folder)
        except OSError:  # another process was quicker
            if not folder.is_dir():
                raise
    return folder


def _key(entry: _index.Entry) -> str:
    """What differs where any file of a clock does."""
    return hashlib.sha256("".join(sorted(file["sha256"] for file in entry.files.values())).encode()).hexdigest()[:24]


def _retrieve(url: str, path: Path, wanted: dict[str, Any]) -> None:
    """Download a file of known size and checksum."""
    import pooch

    def write(url: str, output_file: Any, _: Any) -> None:
        with open(output_file, "wb") as file:
            for block in _blocks(url, wanted["size"]):
                file.write(block)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it names every file, and a bar is shown already
    try:
        pooch.retrieve(url, f"sha256:{wanted['sha256']}", path.name, path.parent, downloader=write)
    except ConnectionError as error:
        raise BundleMissingError(
            f"{error} The clock was not downloaded before; connect to the network, or pass the folder of a copy of the "
            "shelf."
        ) from None
    except ValueError as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(
            f"{url} is not the file that {_index.INDEX} describes (its SHA-256 differs); nothing was kept."
        ) from None
    finally:
        logger.setLevel(level)
