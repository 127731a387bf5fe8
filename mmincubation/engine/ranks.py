"""The processes of a run: how they were started, and the group that they form."""
import hashlib
import os
import time
from datetime import timedelta
from functools import partial

import torch
from mmengine.config import Config

from mmincubation.errors import ConfigError

# Of rank, number of ranks and rank on its machine; mmengine counts the last itself under Slurm.
LAUNCHER_VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), slurm=('SLURM_PROCID', 'SLURM_NTASKS'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'))
LINGER = 2.  # seconds


def rank_and_ranks(launcher: str) -> tuple[int, int]:
    """This process's rank and their number; on GPUs the Runner makes the process group, so it cannot be asked yet.

    Raises:
        ConfigError: this process was not started by the launcher that it was told of.
    """
    if launcher == 'none':
        return 0, 1
    for variable in LAUNCHER_VARIABLES[launcher]:
        if variable not in os.environ:
            raise ConfigError(f'--launcher {launcher}: {variable} is not set; start through torchrun '
                              '(tools/dist_train.sh), srun or mpirun, or use --launcher none')
    rank, ranks, *local = (os.environ[variable] for variable in LAUNCHER_VARIABLES[launcher])
    if launcher == 'mpi':  # mmengine does not set it then, and reads it where it wraps the model
        os.environ['LOCAL_RANK'] = local[0]
    return int(rank), int(ranks)


def restarted() -> bool:
    """Whether torchrun (`--max-restarts`) or Slurm (`scontrol requeue`) has begun this command anew by itself."""
    return any(int(os.environ.get(name, 0)) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))


def init_process_group(launcher: str, cfg: Config) -> float:
    """CPU ranks under torchrun: mmengine would call CUDA, so the group must exist before the Runner does.

    Returns the seconds that ranks wait for each other: `env_cfg.dist_cfg.timeout`, else torch's own for NCCL.
    """
    timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout', 600)
    if launcher == 'none':
        return timeout
    if not torch.cuda.is_available():
        if launcher != 'pytorch':
            raise ConfigError(f'--launcher {launcher} needs a GPU; on CPUs start through tools/dist_train.sh')
        torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    elif launcher == 'mpi' and 'MASTER_ADDR' not in os.environ:
        raise ConfigError('--launcher mpi: MASTER_ADDR is not set; give mpirun -x MASTER_ADDR=<the first machine>')
    return timeout


def first_to_say(text: str) -> bool:
    """Return whether this rank prints a line that other ranks may have to say too.

    Before there is a process group, ranks of one machine read the same files and come to the same: its first rank
    speaks. Then rank 0 does, and waits a little until the others know; without it the first of them speaks.
    """
    if not torch.distributed.is_initialized():
        return int(os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', 0))) == 0
    try:
        store, key = torch.distributed.distributed_c10d._get_default_store(), hashlib.sha256(text.encode()).hexdigest()
        leads, end = torch.distributed.get_rank() == 0, time.monotonic() + LINGER
        if leads:
            store.set(f'{key} said', '')
        done = partial(_all_know, store, key) if leads else partial(store.check, [f'{key} said'])
        while not done() and time.monotonic() < end:
            time.sleep(0.02)
        if not leads and done():
            store.add(f'{key} known', 1)
            return False
        return leads or store.add(f'{key} alone', 1) == 1
    except Exception:  # rank 0, which has the store, is gone
        return True


def _all_know(store, key: str) -> bool:
    return store.add(f'{key} known', 0) >= torch.distributed.get_world_size() - 1


def close_process_group() -> None:
    """Leave together."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        if torch.distributed.get_backend() != 'gloo':  # `leave` ends those
            torch.distributed.destroy_process_group()
