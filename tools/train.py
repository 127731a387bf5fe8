"""Train a classifier, an incubation, a detector or a segmentor: python tools/train.py CONFIG."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.probes.arguments import count


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs, checkpoints and result.json go (default: work_dirs/CONFIG)')
    parser.add_argument('--phase', help='run one phase of an incubation alone: meta, module_0, ..., finetune')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='PATH',
                        help='continue from the newest checkpoint of the work dir, or from PATH')
    parser.add_argument('--allow-changed', action='store_true',
                        help='resume although config, batch size, ranks, data or code have changed')
    parser.add_argument('--skip-nonfinite', type=count, default=0, metavar='N',
                        help='leave out up to N steps whose loss or gradient is not finite (default: none)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate from auto_scale_lr.base_batch_size to the real batch size')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V',
                        help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt(at_once=True)
    args = parse_args()
    from mmincubation.engine.launch import train  # after parsing: --help must not wait for torch
    sys.exit(train(args))
