"""Predict with a classifier, a detector or a segmentor: python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Exit code 1: something was skipped, 2: nothing could be done.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='a checkpoint of the run, a published model or (classification) weights of '
                        'a ViT')
    parser.add_argument('images', type=Path, metavar='IMAGE_OR_FOLDER', help='an image, or a folder with all below it')
    parser.add_argument('--out', type=Path, metavar='DIR',
                        help='where pictures, masks and predictions.json go (default: work_dirs/CONFIG/predictions)')
    parser.add_argument('--device', default='cpu', help='default: %(default)s; cuda, cuda:1, ...')
    return parser.parse_args(argv)


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    args = parse_args()
    from mmincubation.inference.folder import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
