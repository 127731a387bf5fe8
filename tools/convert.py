"""Rewrite a ViT's weights from any known format to another: python tools/convert.py SRC DST [--to FORMAT]."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.probes.arguments import field


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', metavar='SRC', help='the weights: a file, or hf://ORG/REPO/PATH/FILE@REVISION'
                        '[#sha256=HASH]; the format is recognised (docs/guides/weights.md lists them)')
    parser.add_argument('dst', metavar='DST', help='a new file: .safetensors, .pth for --to official, either for '
                        '--to mmpretrain')
    parser.add_argument('--to', choices=['timm', 'mmpretrain', 'official', 'hf'], default='timm',
                        help='whose names (default: timm); official: the public Deep Incubation code, hf: transformers')
    parser.add_argument('--modules', type=int, metavar='K', help='equal modules for --to official, if neither header '
                        'nor source has a division (default: 4, as in the paper)')
    parser.add_argument('--arch', nargs='+', type=field, default=[], metavar='FIELD=VALUE',
                        help='what the file does not show, for the header of the new one: num_heads=12 norm_eps=1e-6')
    parser.add_argument('--prefix', metavar='WORDS', help='which ViT, if SRC holds several: teacher.backbone')
    return parser.parse_args()


def main() -> int:
    """Exit code 0, or 2 after one line on stderr."""
    args = parse_args()
    from mmincubation.checkpoints.convert import convert  # after parsing: --help must not wait for torch
    try:
        done = convert(args.src, args.dst, args.to, args.modules, dict(args.arch), args.prefix)
    except (ValueError, OSError) as error:
        print(f'convert.py: error: {error}', file=sys.stderr)
        return 2
    print(f'{args.src}: {done.source}')
    print('arch: ' + ', '.join(f'{name}={value}' for name, value in done.arch.items()))
    if done.division:
        print(f'division: {done.division}')
    for line in done.assumed:
        print(f'assumed: {line}')
    print(f'{args.dst}: {args.to}, {done.keys} keys, {done.parameters:,} parameters, sha256 {done.sha256}')
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
