"""Write a classifier or a segmentor as ONNX: python tools/export.py CONFIG CHECKPOINT OUT.onnx --size H W."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='The graph takes `image` (1, 3, H, W), float32 of 0 to 255 in RGB order, and gives '
        '`logits`. It is compared with torch. Exit code 2: nothing was written.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='a checkpoint of the run, a published model or (classification) weights of '
                        'a ViT')
    parser.add_argument('out', type=Path, metavar='OUT.onnx', help='a new file')
    parser.add_argument('--size', type=int, nargs=2, required=True, metavar=('H', 'W'), help='of the images, in pixels')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Exit code 0, or 2 after one line on stderr."""
    args = parse_args(argv)
    from mmincubation.inference.export import export  # after parsing: --help must not wait for torch
    from mmincubation.inference.predictor import load_model
    try:
        difference = export(load_model(args.config, args.checkpoint), args.out, tuple(args.size))
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'{args.out}: onnxruntime and torch differ by {difference:.1e} of the largest logit')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
