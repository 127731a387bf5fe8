"""The seed of a run whose config gives none: drawn once, kept with the run, the same on all ranks."""
from pathlib import Path
from secrets import randbelow

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from mmincubation.atomic import write_atomic
from mmincubation.checkpoints import read_tensors
from mmincubation.errors import ConfigError
from mmincubation.result import locked

FILE = 'seed'  # in the folder of a run; the phases that run alone share it


def seed_of(cfg: Config, work_dir: str) -> int:
    """Return the seed of the checkpoint that the run resumes from, else that of its folder, where it is drawn first.

    Every rank must call it; rank 0 decides.

    Raises:
        ConfigError: the file of the seed holds something else.
    """
    decided = [_decide(cfg, work_dir) if is_main_process() else None]
    broadcast_object_list(decided)
    if isinstance(decided[0], str):
        raise ConfigError(decided[0])
    return decided[0]


def _decide(cfg: Config, work_dir: str) -> int | str:
    """Return the seed, or what is wrong with its file."""
    if cfg.get('resume') and cfg.get('load_from'):
        seed = (read_tensors(cfg.load_from)[0].get('meta') or {}).get('seed')
        if isinstance(seed, int):
            return seed
    loop = cfg.get('train_cfg') or {}
    alone = loop.get('phase') and loop.get('weights_dir')
    path = (Path(loop['weights_dir']).parent if alone else Path(work_dir)) / FILE
    with locked(path):  # jobs of several phases may begin at the same time
        if not path.exists():
            write_atomic(path, f'{randbelow(2**31)}\n'.encode())
        text = path.read_text().strip()
    return int(text) if text.isdecimal() else \
        f'{path} holds no seed but {text!r:.40}: delete it, or set randomness.seed'
