"""The whole pipeline, small, on embedded real data: incubate, assemble, fine-tune, detect, segment, compare."""
import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(ROOT)
    from mmincubation.demo.run import run_demo
    sys.exit(run_demo())
