"""Measure a ViT's features by k-NN and a linear probe: python tools/probe.py WEIGHTS --train DIR --val DIR."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    from mmincubation.probes.arguments import probe_parser
    args = probe_parser(__doc__).parse_args()
    from mmincubation.probes.run import main  # after parsing: --help must not wait for torch
    sys.exit(main(args))
