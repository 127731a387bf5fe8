"""Weights on the Hugging Face hub, under names that always mean the same file."""
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from mmincubation.errors import CheckpointError
from mmincubation.hashes import git_blob_sha1_of, sha256_of

SCHEME = 'hf://'
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


def local_file(path: str | Path) -> Path:
    """Return `path` itself, or the downloaded and verified file of an hf:// name.

    Raises:
        CheckpointError: the name is wrong, the file cannot be downloaded, or its hash differs.
    """
    return fetch(str(path))[0] if is_hub(path) else Path(path)


@cache  # so that a file is downloaded and hashed once in a process
def fetch(url: str) -> tuple[Path, str]:
    """Download the file of an hf:// name into the hub's cache; return its path and one line on how it was verified.

    Raises:
        CheckpointError: as `local_file`.
    """
    file = HubFile.parse(url)
    import huggingface_hub  # here: it takes a quarter of a second that few runs need
    try:
        path = Path(huggingface_hub.hf_hub_download(file.repo, file.name, revision=file.revision))
    except Exception as error:  # errors of the hub, of its HTTP library and of the disk
        raise CheckpointError(f'{url}: cannot be downloaded ({_reason(error)}); check the name and the network '
                              f'(HF_HUB_OFFLINE, HF_TOKEN), or run `hf download {file.repo} {file.name} --revision '
                              f'{file.revision}` where there is one and give the path of the file') from error
    return path, _verify_hash(url, file, path)


@cache
def fetch_beside(url: str, name: str) -> Path | None:
    """Download `name` from the folder and commit of an hf:// name; return None if it is not there or out of reach."""
    file = HubFile.parse(url)
    import huggingface_hub
    try:
        return Path(huggingface_hub.hf_hub_download(
            file.repo, str(PurePosixPath(file.name).with_name(name)), revision=file.revision))
    except Exception:  # errors of the hub, of its HTTP library and of the disk; the weights themselves are there
        return None


def _reason(error: Exception) -> str:
    sentence = re.split(r'[.\n](?:\s|$)', str(error).strip())[0]
    return f'{type(error).__name__}: {re.sub(r"https?://[^ ]+", "the hub", sentence)[:200]}'


def _verify_hash(url: str, file: HubFile, path: Path) -> str:
    expected, source = (file.sha256, 'given') if file.sha256 else (_reported_hash(path), 'reported by the hub')
    if expected is None:
        return 'not checked: the hub reported no hash and none was given; add #sha256=HASH'
    kind, hash_of = ('sha256', sha256_of) if len(expected) == 64 else ('git blob sha1', git_blob_sha1_of)
    if (actual := hash_of(path)) != expected:
        raise CheckpointError(f'{url}: {kind} {actual} of the downloaded file {path}, but {expected} was {source}; '
                              'delete the file and download it again, or correct the hash')
    return f'{kind} {expected} {source}: equal'


def _reported_hash(path: Path) -> str | None:
    """Return the hash that the server reported: the hub's cache names the file by it (SHA-256 in Git LFS).

    Only one link is followed: the file behind it may be named by a hash of another kind.
    """
    name = Path(os.readlink(path)).name if path.is_symlink() else ''
    return name if re.fullmatch('[0-9a-f]{40}|[0-9a-f]{64}', name) else None
