"""`topk` of the accuracy: what users write, and what would fail after the first epoch."""
import pytest
import torch

from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.models.accuracy import Accuracy


@pytest.mark.parametrize('topk, keys', [(1, ['top1']), ([1, 2], ['top1', 'top2']), ((2, ), ['top2'])])
def test_one_number_or_several(topk, keys):
    metric = Accuracy(topk=topk)
    scores = torch.tensor([0.1, 0.7, 0.2])
    metric.process({}, [dict(scores=scores, label=torch.tensor(2))])
    found = metric.compute_metrics(metric.results)
    assert found == {key: 100. * (key == 'top2') for key in keys}


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_scores_that_are_not_finite_never_count_as_right(bad):
    """Also where k is above the number of classes, and every other image is right."""
    metric = Accuracy(topk=(1, 5))
    scores = torch.tensor([[0.1, 0.7, 0.2], [bad, 0.7, 0.2]])
    metric.process({}, [dict(scores=row, label=torch.tensor(1)) for row in scores])
    assert metric.compute_metrics(metric.results) == dict(top1=50., top5=50.)


@pytest.mark.parametrize('topk', [0, (1, -2), '5', (), (1.5, ), (True, )])
def test_what_is_no_place_is_a_problem_before_the_run(topk):
    cfg = load_config('configs/imagenet/vit_b_e2e.py')
    cfg.val_evaluator.topk = topk
    assert [p for p in problems(cfg, 'train') if 'topk' in str(p)]
