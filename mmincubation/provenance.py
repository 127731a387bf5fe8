"""The origin of a result: config, code, weights, data, machine and pictures of a run."""
from __future__ import annotations

import copy
import hashlib
import os
import platform
import re
import resource
import sys
from importlib import metadata
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.utils import get_git_hash
from torch import nn

from mmincubation.errors import ConfigError
from mmincubation.hashes import sha256_of
from mmincubation.registry import pretrained_of

PACKAGES = ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmsegmentation', 'timm')
# How a run was started, not what it computes: the same experiment, resumed or run phase by phase, keeps its hash.
LAUNCH_KEYS = ('work_dir', 'experiment_name', 'resume', 'launcher', 'model_wrapper_cfg')
PHASE_KEYS = ('phase', 'weights_dir')
SAMPLED_IMAGES = 16
UNSAID = 'loaded by mmengine, which does not say what it covers'
SPLITS = ('train', 'training', 'images', 'img', '/')  # folders that do not name a data set


def config_sha256(cfg: Config) -> str:
    """Return the SHA-256 of the config as mmengine prints it, in hex, without the keys that only say how it started."""
    cfg = copy.deepcopy(cfg)
    if cfg.get('resume'):  # then `load_from` is the checkpoint to resume from, else it is the first weights
        cfg.pop('load_from', None)
    for key in LAUNCH_KEYS:
        cfg.pop(key, None)
    for key in PHASE_KEYS:
        (cfg.get('train_cfg') or {}).pop(key, None)
    return hashlib.sha256(cfg.pretty_text.encode()).hexdigest()


def config_path(cfg: Config) -> str:
    """Return the path of the config file, relative if it is below the current folder; '' for one made in memory."""
    path = Path(cfg.filename or '')
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path) if cfg.filename else ''


def git_commit() -> str | None:
    """Return the commit of the repository around the current folder; None without a repository or a commit."""
    commit = get_git_hash(fallback='')
    return commit if re.fullmatch('[0-9a-f]{40}', commit) else None


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed `PACKAGES`, without importing them."""
    installed = {dist.metadata['Name'].lower(): dist.version for dist in metadata.distributions()}
    return dict(python=platform.python_version(), **{name: installed[name] for name in PACKAGES if name in installed})


def hardware() -> str:
    """Return the name of the GPU, or without one that of the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path('/proc/cpuinfo')
    name = re.search(r'model name\s*:\s*(.+)', cpuinfo.read_text()) if cpuinfo.is_file() else None
    return name.group(1).strip() if name else platform.processor() or platform.machine()


def peak_memory_mib() -> float:
    """Return this process's peak memory in MiB: of tensors on the GPU, or without one its resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    # macOS counts bytes, Linux KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10)


def dataset_name(cfg: dict) -> str:
    """Return type, root, annotation file and folders in a data set's config, inside wrappers such as RepeatDataset."""
    while isinstance(cfg.get('dataset'), dict):
        cfg = cfg['dataset']
    if isinstance(cfg.get('datasets'), list | tuple):  # concatenated
        return ' + '.join(map(dataset_name, cfg['datasets']))
    names = [cfg.get(key) for key in ('type', 'root', 'data_root', 'ann_file')]
    names += (cfg.get('data_prefix') or {}).values()
    return ' '.join(str(name) for name in names if name)


def folder_of(cfg: dict) -> str:
    """Return the name of the folder of a data set's config; that of its parent where it is called after the split."""
    while isinstance(cfg.get('dataset'), dict):
        cfg = cfg['dataset']
    parts = Path(str(cfg.get('root') or cfg.get('data_root') or cfg.get('ann_file') or cfg.get('type'))).parts
    named = [part for part in parts if part not in SPLITS]
    return (named or parts or ('?', ))[-1]


def data_summary(runner) -> dict:
    """Return names, sizes in images, and digests of the training and validation sets of a runner."""
    train, cfg = runner.train_dataloader.dataset, runner.cfg.train_dataloader['dataset']
    summary = dict(
        folder=folder_of(cfg), train=dataset_name(cfg), train_size=len(train), train_content=content_digest(train),
        val=None, val_size=None, val_content=None)
    if runner.val_loop is not None:
        val = runner.val_dataloader.dataset
        summary.update(
            val=dataset_name(runner.cfg.val_dataloader['dataset']), val_size=len(val), val_content=content_digest(val))
    return summary


def content_of(dataset) -> str:
    """Return a text with a data set's class, its number of samples, and a digest of its content.

    The folder does not count, so data may move.
    """
    inner = _inner(dataset)
    if hasattr(inner, 'datasets'):  # concatenated
        return f'{len(dataset)} samples: ' + ' + '.join(map(content_of, inner.datasets))
    digest = content_digest(dataset)
    return f'{type(inner).__name__}, {len(dataset)} samples' + f', content {digest}' * bool(digest)


def content_digest(dataset) -> str | None:
    """Return 12 hex digits of a data set's annotations and of some of its images; None if it shows neither.

    Annotations are the bytes of a JSON file, or the data set's own `fingerprint()`, or what it says of each image, with
    the sizes of label pictures. SAMPLED_IMAGES images are read, evenly spaced: they tell data sets apart that are
    labelled alike.
    """
    inner = _inner(dataset)
    if hasattr(inner, 'datasets'):
        parts = [content_digest(part) for part in inner.datasets]
        return None if None in parts else _digest(' '.join(parts).encode())
    file = getattr(inner, 'ann_file', None)
    if isinstance(file, str) and file.endswith('.json') and os.path.isfile(file):
        labels = sha256_of(file)
    elif hasattr(inner, 'fingerprint'):
        labels = inner.fingerprint()
    elif hasattr(inner, 'get_data_info'):
        labels = _digest(chr(0).join(_said_of(inner.get_data_info(i)) for i in range(len(inner))).encode())
    else:
        return None
    picked = range(0, len(inner), max(1, len(inner) // SAMPLED_IMAGES))
    return _digest(b''.join([f'{len(dataset)} {labels}'.encode(), *(_image_bytes(inner, i) for i in picked)]))


def _inner(dataset):
    while hasattr(dataset, 'dataset'):  # RepeatDataset and the like
        dataset = dataset.dataset
    return dataset


def _said_of(info: dict) -> str:
    """Return what a data set says of an image: names without folders, objects, the size of the label picture."""
    labels = str(info.get('seg_map_path'))
    size = os.path.getsize(labels) if os.path.isfile(labels) else None
    said = {key: os.path.basename(value) if isinstance(value, str) else value for key, value in info.items()}
    return f'{sorted(said.items(), key=lambda item: str(item[0]))} {size}'


def _image_bytes(dataset, index: int) -> bytes:
    """Return the bytes of an image's file and of its label picture; b'' where they are not files here."""
    try:
        if hasattr(dataset, 'stored'):  # ours
            return hashlib.sha256(dataset.stored(int(dataset.kept[index]))).digest()
        info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
        files = [str(info.get(key)) for key in ('img_path', 'seg_map_path')]
        return b''.join(bytes.fromhex(sha256_of(file)) for file in files if os.path.isfile(file))
    except (OSError, ConfigError):  # the run has its own rules for a damaged image
        return b''


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def reported_weights(model: nn.Module) -> dict | None:
    """Return the first `load_report` of a module of the model, None without one; no file is read."""
    return next(filter(None, (getattr(module, 'load_report', None) for module in model.modules())), None)


def loaded_weights(model: nn.Module) -> dict | None:
    """Return `path`, `sha256` and `coverage` of the file that a module of the model loaded first, None without one.

    mmengine's own modules make no report: theirs is of the local file that they are set to begin with.
    """
    reports = (module.load_report if hasattr(module, 'load_report') else _loaded_by_mmengine(module)
               for module in model.modules())
    report = next(filter(None, reports), None)
    return report and {key: report[key] for key in ('path', 'sha256', 'coverage')}


def _loaded_by_mmengine(module: nn.Module) -> dict | None:
    path = pretrained_of(getattr(module, 'init_cfg', None))
    if path is None or not os.path.isfile(path):
        return None
    return dict(path=str(path), sha256=sha256_of(path), coverage=UNSAID)


def written_weights(work_dir: Path) -> list[dict]:
    """Return `path`, relative to `work_dir`, and `sha256` of every weight file in `<work_dir>/weights/`."""
    files = sorted((work_dir / 'weights').glob('*.safetensors'))
    return [dict(path=file.relative_to(work_dir).as_posix(), sha256=sha256_of(file)) for file in files]


def newest_pictures(work_dir: Path, count: int = 4) -> list[str]:
    """Return the paths, relative to `work_dir`, of the last pictures that this run drew since it was last started."""
    drawn = sorted(work_dir.glob('**/vis_image/*.png'), key=lambda file: (os.stat(file).st_mtime_ns, file.name))
    last = [file for file in drawn if file.parent == drawn[-1].parent][-count:]
    return [file.relative_to(work_dir).as_posix() for file in last]
