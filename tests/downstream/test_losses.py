"""mmseg's cross entropy with weights of classes is torch's weighted mean, also where pixels are ignored."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmincubation.downstream.losses import correct_losses


def scores_and_labels(ignored: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, generator=draw, dtype=torch.float64).requires_grad_()
    labels = torch.randint(3, (2, 4, 5), generator=draw)
    if ignored is not None:
        labels[0, 1:3] = labels[1, :, 2] = ignored
    return scores, labels


def corrected(**settings) -> nn.Module:
    from mmseg.models.losses import CrossEntropyLoss
    model = nn.ModuleList([CrossEntropyLoss(**settings)])
    correct_losses(model)
    return model[0]


@pytest.mark.parametrize('ignored', [255, 250, 0, None])
@pytest.mark.parametrize('settings', [dict(), dict(avg_non_ignore=True), dict(loss_weight=0.5)])
def test_the_mean_and_its_gradient_are_torchs(ignored, settings):
    scores, labels = scores_and_labels(ignored)
    weights = [1., 5., 2.]
    seen = corrected(class_weight=weights, **settings)(scores, labels, ignore_index=255 if ignored is None else ignored)
    expected = settings.get('loss_weight', 1.) * F.cross_entropy(
        scores, labels, torch.tensor(weights).double(), ignore_index=255 if ignored is None else ignored)
    torch.testing.assert_close(seen, expected, rtol=1e-7, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(loss, scores)[0] for loss in (seen, expected)), rtol=1e-6, atol=0)


def test_where_the_stock_loss_works_nothing_changes():
    from mmseg.models.losses import CrossEntropyLoss
    scores, labels = scores_and_labels(None)
    pixels = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1))
    for settings in (dict(class_weight=[1., 5., 2.]), dict(class_weight=[1., 5., 2.], reduction='none'), dict()):
        for weight in (None, pixels):
            stock = CrossEntropyLoss(**settings)(scores, labels, weight, ignore_index=255)
            assert torch.equal(stock, corrected(**settings)(scores, labels, weight, ignore_index=255))


def test_only_ignored_pixels_cost_nothing():
    scores, labels = scores_and_labels(None)
    assert corrected(class_weight=[1., 5., 2.])(scores, labels * 0 + 255, ignore_index=255) == 0
