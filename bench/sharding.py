"""Memory of one of two ranks, copies and spread, beside the estimate of tools/check.py (CPU, gloo).

python bench/sharding.py
"""
import logging
import sys
import warnings
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.memory import LEAN, SMALL, classifier, detector, real_batch
from mmincubation.benchmark.memory import allocated
from mmincubation.check import batches, memory
from mmincubation.vit.sharding import local_shard, shard
from tests.helpers.forked import free_port

SPREAD = dict(type='mmincubation.FullyShard')


def measured(cfg: Config) -> int:
    """As `bench.memory.measured`, on one of several ranks."""
    torch.manual_seed(0)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).train()
    model = shard(model) if cfg.get('model_wrapper_cfg') else DistributedDataParallel(model)
    wrapper = memory.make_wrapper(cfg.optim_wrapper, model)
    size = batches.input_size(cfg.model, cfg.train_dataloader)
    for _ in range(3):  # the first makes the optimiser's state, the second the buckets
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
            data = real_batch(cfg.default_scope, size, cfg.train_dataloader.batch_size)
            loss = memory.total_loss(model, data)
            loss.backward()
            wrapper.step()
            del loss, data
        wrapper.zero_grad()
    state = [v for s in wrapper.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    buckets = 0 if cfg.get('model_wrapper_cfg') else sum(p.numel() * 4 for p in model.parameters())
    held = sum(local_shard(t).numel() * t.element_size() for t in [*model.parameters(), *state])
    return held + buckets + allocated(prof)


def rank(number: int, port: int, cases: dict) -> None:
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', f'tcp://127.0.0.1:{port}', rank=number, world_size=2)
    for name, cfg in cases.items():
        found = measured(cfg)
        if number == 0:
            peak = memory.estimate(cfg, 2)[0].peak
            error = 100 * (peak / found - 1)
            print(f'| {name} | {peak / 2**20:,.0f} | {found / 2**20:,.0f} | {error:+.1f} % |', flush=True)
        distributed.barrier()


def main() -> None:
    """Print the table."""
    deep = dict(SMALL, depth=24)
    small = {'ViT 384x24, 224, batch 2': classifier(deep, 2), 'ViT 384x24, 224, batch 8': classifier(deep, 8),
             'Mask R-CNN 256x8, 384x384, batch 2, checkpointing': detector(256, 8, 2, 384, **LEAN)}
    cases = {f'{name}, copies': cfg for name, cfg in small.items()}
    cases |= {f'{name}, spread': Config(dict(cfg.to_dict(), model_wrapper_cfg=SPREAD)) for name, cfg in small.items()}
    print('| case | estimate MiB | measured MiB | error |\n|---|---|---|---|', flush=True)
    multiprocessing.spawn(rank, (free_port(), cases), 2)


if __name__ == '__main__':
    sys.exit(main())
