"""Weights at addresses: on the Hugging Face hub, under names that always mean the same file, and on the web."""
import hashlib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import torch

from mmincubation.errors import CheckpointError
from mmincubation.hashes import git_blob_sha1_of, sha256_of

SCHEME = 'hf://'
WEB = ('https://', 'http://')
SYNTAX = 'hf://ORG/REPO/PATH/FILE@REVISION[#sha256=HASH]'


@dataclass(frozen=True)
class HubFile:
    """One file in one commit of a repository; `sha256` is its expected hash, None if the name has none."""
    repo: str
    name: str
    revision: str
    sha256: str | None = None

    @classmethod
    def parse(cls, url: str) -> 'HubFile':
        """Read `hf://ORG/REPO/PATH/FILE@REVISION[#sha256=HASH]`.

        Raises:
            CheckpointError: the syntax is wrong, or the revision is not a full commit hash.
        """
        rest, _, fragment = url.removeprefix(SCHEME).partition('#')
        place, _, revision = rest.partition('@')
        org, repo, name = ([*place.split('/', 2), '', ''])[:3]
        if not (url.startswith(SCHEME) and org and repo and name):
            raise CheckpointError(f'{url}: write it as {SYNTAX}')
        if not re.fullmatch('[0-9a-f]{40}', revision):
            raise CheckpointError(
                f'{url}: {f"revision {revision!r}" if revision else "no revision"}; a branch or tag can change under a '
                "result, so give the commit's full 40 hex digits (on the hub: Files, History, copy the commit hash): "
                f'{SYNTAX}')
        if fragment and not re.fullmatch('sha256=[0-9a-f]{64}', fragment):
            raise CheckpointError(f'{url}: {fragment!r} after the # must be sha256= and 64 hex digits')
        return cls(f'{org}/{repo}', name, revision, fragment.removeprefix('sha256=') or None)


def is_hub(path: str | Path) -> bool:
    """Return whether `path` names a file on the hub."""
    return str(path).startswith(SCHEME)


def is_address(path: str | Path) -> bool:
    """Return whether `path` names a file on the hub or on the web."""
    return str(path).startswith((SCHEME, *WEB))


def hash_in_name(name: str) -> str | None:
    """Return the first digits of a SHA-256 that torch hub and OpenMMLab put into file names, None without any.

    Decimal digits alone are a date or a number of steps.
    """
    found = re.search(r'-(?!\d+\.)([0-9a-f]{8,64})\.\w+$', name)
    return found[1] if found else None


def local_file(path: str | Path) -> Path:
    """Return `path` itself, `~` expanded, or the downloaded and verified file of an hf:// or https:// name.

    Raises:
        CheckpointError: the name is wrong, the file cannot be downloaded, or its hash differs.
    """
    if is_address(path):
        return fetch(str(path))[0]
    if scheme := re.match(r'[\w+-]+://', str(path)):
        raise CheckpointError(f'{path}: {scheme[0]} is not read; give a path, an https:// address or {SYNTAX}')
    return Path(path).expanduser()


def neighbour(source: str | Path, file: Path, name: str) -> str:
    """Return the name of the file `name` beside `source`, of which `file` is the local file."""
    address = str(source).partition('#')[0]
    if address.startswith(SCHEME):
        hub = HubFile.parse(address)
        return f'{SCHEME}{hub.repo}/{PurePosixPath(hub.name).with_name(name)}@{hub.revision}'
    return f'{address.rpartition("/")[0]}/{name}' if is_address(address) else str(file.with_name(name))


@cache  # so that a file is downloaded and hashed once in a process
def fetch(url: str) -> tuple[Path, str]:
    """Download the file of an hf:// or https:// name; return its path and one line on how it was verified.

    Files of the hub are in the hub's cache, others in torch hub's.

    Raises:
        CheckpointError: as `local_file`.
    """
    return _fetch_from_hub(url) if url.startswith(SCHEME) else _fetch_from_web(url)


def _fetch_from_hub(url: str) -> tuple[Path, str]:
    file = HubFile.parse(url)
    import huggingface_hub  # here: it takes a quarter of a second that few runs need
    try:
        path = Path(huggingface_hub.hf_hub_download(file.repo, file.name, revision=file.revision))
    except Exception as error:  # errors of the hub, of its HTTP library and of the disk
        raise CheckpointError(f'{url}: cannot be downloaded ({_reason(error)}); check the name and the network '
                              f'(HF_HUB_OFFLINE, HF_TOKEN), or run `hf download {file.repo} {file.name} --revision '
                              f'{file.revision}` where there is one and give the path of the file') from error
    given, reported = (file.sha256, 'given'), (_reported_hash(path), 'reported by the hub')
    return path, _verify_hash(url, path, *(given if file.sha256 else reported))


def _fetch_from_web(url: str) -> tuple[Path, str]:
    """Download into torch hub's cache; a file whose name has no hash gets a folder of its address: names are shared."""
    address, _, fragment = url.partition('#')
    name = Path(unquote(urlsplit(address).path)).name
    if not name or fragment and not re.fullmatch('sha256=[0-9a-f]{64}', fragment):
        raise CheckpointError(f'{url}: write it as https://HOST/PATH/FILE[#sha256=HASH]')
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    path = (folder if hash_in_name(name) else folder / hashlib.sha256(address.encode()).hexdigest()[:16]) / name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), progress=False)
        except Exception as error:  # of the network, the server, the disk
            raise CheckpointError(f'{url}: cannot be downloaded ({_reason(error)}); check the address and the network, '
                                  'or download it where there is one and give the path of the file') from error
    given, named = (fragment.removeprefix('sha256='), 'given'), (hash_in_name(name), 'in its name')
    return path, _verify_hash(url, path, *(given if fragment else named))


def _reason(error: Exception) -> str:
    sentence = re.split(r'[.\n](?:\s|$)', str(error).strip())[0]
    return f'{type(error).__name__}: {re.sub(r"https?://[^ ]+", "the hub", sentence)[:200]}'


def _verify_hash(url: str, path: Path, expected: str | None, source: str) -> str:
    if expected is None:
        return 'not checked: no hash was reported and none was given; add #sha256=HASH'
    kind, hash_of = ('git blob sha1', git_blob_sha1_of) if len(expected) == 40 else ('sha256', sha256_of)
    if not (actual := hash_of(path)).startswith(expected):
        raise CheckpointError(f'{url}: {kind} {actual} of the downloaded file {path}, but {expected} was {source}; '
                              'delete the file and download it again, or correct the hash')
    return f'{kind} {expected} {source}: equal'


def _reported_hash(path: Path) -> str | None:
    """Return the hash that the server reported: the hub's cache names the file by it (SHA-256 in Git LFS).

    Only one link is followed: the file behind it may be named by a hash of another kind.
    """
    name = Path(os.readlink(path)).name if path.is_symlink() else ''
    return name if re.fullmatch('[0-9a-f]{40}|[0-9a-f]{64}', name) else None
