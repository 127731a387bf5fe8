"""Evaluate a classifier, a detector or a segmentor: python tools/test.py CONFIG CHECKPOINT."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='a checkpoint of the run, or (classification) weights of a ViT')
    parser.add_argument('--work-dir', help='where logs go (default: work_dirs/CONFIG)')
    parser.add_argument('--show-dir', help='draw predictions beside the ground truth into this folder')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions')
    parser.add_argument('--format-only', nargs='?', const='', metavar='PREFIX',
                        help='write the predictions for a test server and evaluate nothing: PREFIX.bbox.json and '
                             'PREFIX.segm.json, or label pictures in PREFIX/ (default: predictions in the work dir)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation as the config defines it')
    parser.add_argument('--cfg-options', nargs='+', action='extend', metavar='K=V',
                        help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt(at_once=True)
    args = parse_args()
    from mmincubation.engine.launch import test  # after parsing: --help must not wait for torch
    sys.exit(test(args))
