"""The whole pipeline, small, on embedded real data: incubate, assemble, fine-tune, detect, segment, compare."""
import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
HINT = 'Run `make demo` again to go on from here, or `make clean-demo` to begin anew.'

if __name__ == '__main__':
    from mmincubation.errors import quiet_interrupt
    quiet_interrupt()
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(ROOT)
    from mmincubation.suite.main import do_file
    sys.exit(do_file('suites/demo.py', HINT))
