"""Join separately incubated modules into one ViT that timm, mmpretrain users and this project read."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('parts', nargs='+', metavar='PART', help='files of module 0, module 1, ... in this order: ours '
                        '(work_dirs/.../module_<i>_last.safetensors) or checkpoints of the public code (model_stages)')
    parser.add_argument('--out', required=True, metavar='FILE.safetensors', help='the assembled ViT')
    return parser.parse_args()


def require_out(out: Path, parts: list[str]) -> None:
    """Raises ValueError if `out` is no safetensors file or one of the parts."""
    if out.suffix != '.safetensors':
        raise ValueError(f'--out {out}: the name must end in .safetensors')
    if out.exists() and any(Path(part).exists() and out.samefile(part) for part in parts):
        raise ValueError(f'--out {out} is one of the parts; choose another name')


def join(parts: list[str], out: Path) -> None:
    """Assemble, write, and print what was joined."""
    from mmincubation.checkpoints import sha256_of, write_tensors
    from mmincubation.incubation.assemble import assemble
    tensors, header = assemble(parts)
    write_tensors(out, tensors, header)
    start = 0
    for module, (part, depth, sha) in enumerate(zip(parts, header['division'], header['parts'], strict=True)):
        print(f'module {module}: blocks {start}..{start + depth - 1} from {part} (sha256 {sha})')
        start += depth
    for line in header.get('assumed', []):
        print(f'assumed: {line}')
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f'{out}: {len(tensors)} keys, {parameters:,} parameters, sha256 {sha256_of(out)}')


def main() -> int:
    """Exit code 0, or 2 after one line on stderr."""
    args = parse_args()
    try:
        require_out(Path(args.out), args.parts)
        join(args.parts, Path(args.out))
    except (ValueError, OSError) as error:
        print(f'assemble.py: error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    sys.exit(main())
