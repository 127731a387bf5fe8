"""Precision and metric."""
import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS

from mmincubation.engine.optim import AutocastOptimWrapper
from mmincubation.models import Accuracy, ViTClassifier

ARCH = dict(embed_dim=16, depth=2, num_heads=2, patch_size=4, img_size=8, num_classes=3)


def test_autocast_computes_in_bfloat16_and_keeps_float32_weights():
    model = ViTClassifier(ARCH)
    optimizer = torch.optim.AdamW(model.parameters())
    wrapper = OPTIM_WRAPPERS.build(dict(type='mmincubation.AutocastOptimWrapper', optimizer=optimizer))
    assert isinstance(wrapper, AutocastOptimWrapper)
    seen = []
    model.vit.head.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    data = dict(inputs=torch.zeros(4, 3, 8, 8, dtype=torch.uint8), labels=torch.arange(4) % 3)
    loss = model.train_step(data, wrapper)['loss']
    assert seen == [torch.bfloat16] and loss.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_accuracy_counts_ranks():
    metric = Accuracy(topk=(1, 2))
    scores = torch.tensor([[.5, .3, .2], [.1, .2, .7], [.3, .4, .3], [.2, .5, .3]])
    labels = torch.tensor([0, 1, 0, 0])
    metric.process({}, [dict(scores=s, label=t) for s, t in zip(scores, labels, strict=True)])
    # Ranks 0, 1, 2 (a tie counts against), 2.
    assert metric.compute_metrics(metric.results) == dict(top1=25.0, top2=50.0)


@pytest.mark.parametrize('value', [float('nan'), 0.1])
def test_a_collapsed_or_diverged_model_scores_nothing(value):
    metric = Accuracy()
    metric.process({}, [dict(scores=torch.full((10, ), value), label=torch.tensor(3))])
    assert metric.compute_metrics(metric.results) == dict(top1=0.0)
