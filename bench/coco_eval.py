"""Time of COCO's evaluation: pycocotools against FastEval, which must give the same bits.

python bench/coco_eval.py [--images 5000] [--runs 5]
"""
import argparse
import contextlib
import copy
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.downstream.fast_eval import FastEval
from tests.helpers.synthetic_coco import predictions, truth


def seconds(evaluator, found: dict, results: list[dict], iou_type: str) -> tuple[float, np.ndarray]:
    """Time from the loaded result list to the 12 numbers, and these."""
    coco, results = COCO(), copy.deepcopy(results)
    coco.dataset = copy.deepcopy(found)
    coco.createIndex()
    start = time.perf_counter()
    run = evaluator(coco, coco.loadRes(results), iou_type)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return time.perf_counter() - start, np.array(run.stats)


def compare(found: dict, results: list[dict], iou_type: str, runs: int) -> str:
    times = {COCOeval: [], FastEval: []}
    for _ in range(runs):  # in turn: what else the machine does meets both
        numbers = []
        for evaluator, taken in times.items():
            with open(os.devnull, 'w') as null, contextlib.redirect_stdout(null):
                second, stats = seconds(evaluator, found, results, iou_type)
            taken.append(second)
            numbers.append(stats)
        assert np.array_equal(*numbers), (iou_type, numbers)
    theirs, ours = map(statistics.median, times.values())
    return (f'{iou_type}: pycocotools {theirs:.2f} s, FastEval {ours:.2f} s, {theirs / ours:.1f} times as fast; '
            f'12 numbers equal, AP {numbers[0][0]:.6f}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--runs', type=int, default=5)
    args = parser.parse_args()
    found = truth(args.images)
    print(f'{args.images} images, {len(found["annotations"])} objects, {os.cpu_count()} cores, '
          f'median of {args.runs} runs')
    for iou_type, key in dict(bbox='bbox', segm='segmentation').items():
        results = predictions(found, keys=(key, ))
        print(f'{len(results)} predictions;', compare(found, results, iou_type, args.runs), flush=True)
