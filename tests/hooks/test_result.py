"""What hooks add to result.json, and what stands there for what measures nothing."""
from types import SimpleNamespace

from mmincubation.hooks.cost import CostMeter
from mmincubation.hooks.result import ResultHook
from mmincubation.result import read_result
from mmincubation.resumable.protocol import BaseHook
from tests.hooks.test_cost import make_runner


class Adds(BaseHook):
    """A user's hook that says more of a run."""

    def add_to_result(self, runner, result, folders):
        result['metrics']['mine'] = 1.0
        result['unknown'] = 2
        assert folders == [runner.work_dir]


def test_a_hook_adds_to_the_result_and_its_mistake_costs_nothing(tmp_path):
    runner, said = make_runner(tmp_path), []
    runner.register_hook(Adds())
    runner.logger.warning = said.append
    runner.train()
    result = read_result(tmp_path / 'result.json')
    assert result['metrics']['mine'] == 1.0 and 'unknown' not in result
    assert any('leaves out what it has no key for: unknown; a hook may set the keys' in line for line in said)


def test_metrics_that_measure_nothing_are_null_and_named_once():
    said = []
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[]))
    runner = SimpleNamespace(_train_loop=None, iter=1, logger=SimpleNamespace(warning=said.append), val_loop=loop,
                             hooks=[CostMeter()])
    hook = ResultHook()
    given = {'a': 1, 'b': float('nan'), 'c': 'text', 'd': [1], 'change': -1., 'ball_precision': -1.,
             'coco/bbox_mAP': 0., 'coco/bbox_mAP_s': -1., 'coco/AR@100': -1., 'proposal/AR_s@1000': -1., 'MAPE': -1.}
    for _ in range(2):
        hook.after_val_epoch(runner, given)
    assert {key for key, value in hook.metrics['train'].items() if value is None} == {
        'b', 'ball_precision', 'coco/bbox_mAP_s', 'coco/AR@100', 'proposal/AR_s@1000'} == hook.notes.keys()
    assert hook.metrics['train'].items() >= {'a': 1., 'change': -1., 'coco/bbox_mAP': 0., 'MAPE': -1.}.items()
    assert said == [
        'null in result.json: b: the validation gave nan',
        'null in result.json: ball_precision, coco/bbox_mAP_s, coco/AR@100, proposal/AR_s@1000: the validation set has '
        'no such object']
    hook.after_val_epoch(runner, given | {'b': 2., 'ball_precision': 0.5})
    assert hook.metrics['train']['b'] == 2 and 'b' not in hook.notes
