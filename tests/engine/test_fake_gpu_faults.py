"""The test on the fake GPU finds faults: each is planted here."""
import pytest
import torch
from mmengine.config import Config

from mmincubation.config.load import load_config
from mmincubation.downstream import ViTBackbone
from mmincubation.hooks.ema import EMAHook
from mmincubation.models import ClsDataPreprocessor
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.vit.transformer import VisionTransformer
from tests.engine.test_fake_gpu import faults, ran
from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.fake_steps import Run
from tests.helpers.paths import ROOT


def faulty(monkeypatch, owner, name: str, change) -> None:
    """Let a function's result, or what it does before, be changed by `change(result, *its arguments)`."""
    right = getattr(owner, name)

    def wrong(*args, **kwargs):
        return change(right(*args, **kwargs), *args)

    monkeypatch.setattr(owner, name, wrong)


def test_it_computes_in_bfloat16_as_a_gpu_does():
    with fake_gpu(), torch.autocast('cuda', dtype=torch.bfloat16):
        ones = torch.ones(2, 2, device='cuda')
        assert (ones @ ones).dtype == torch.bfloat16


def small() -> Config:
    return load_config(ROOT / 'configs/cifar100/deit_t_32_e2e.py')


def segmentor() -> Config:
    return load_config(ROOT / 'configs/ade20k/linear_vit_b_e2e.py')


def test_a_tensor_made_on_the_cpu_in_forward(monkeypatch):
    faulty(monkeypatch, VisionTransformer, 'stem', lambda tokens, *args: tokens + torch.zeros(tokens.shape[-1]))
    with pytest.raises(RuntimeError, match='some tensors are on the CPU'):
        ran(small())


def test_a_tensor_without_a_device_in_a_head(monkeypatch):
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    faulty(monkeypatch, BaseDecodeHead, 'cls_seg', lambda logits, *args: logits * torch.ones(logits.shape[1], 1, 1))
    with pytest.raises(RuntimeError, match='some tensors are on the CPU'):
        ran(segmentor())


def test_a_buffer_on_the_cpu(monkeypatch):
    def placed(result, self, *args):
        self.data_preprocessor.register_buffer('late', torch.zeros(3))

    faulty(monkeypatch, Run, '_whole', lambda step, self: placed(step, self.model) or step)
    with pytest.raises(AssertionError, match='late is on cpu'):
        ran(small())


def test_a_loss_that_is_on_the_cpu(monkeypatch):
    monkeypatch.setattr('mmincubation.models.ViTClassifier.train_step', lambda *args: dict(loss=torch.zeros(())))
    with pytest.raises(AssertionError, match='loss is on cpu'):
        ran(small())


PLANTED = [
    (ViTBackbone, 'stem', segmentor, lambda out: (out[0] * (out[0].sum() > 0).item(), out[1]), 'number'),
    (ViTBackbone, 'stem', segmentor, lambda out: (out[0][:, torch.arange(out[0].shape[1])], out[1]), 'index'),
    (ViTBackbone, 'stem', segmentor, lambda out: (out[0] + torch.ones(1, 1, 1).to('cuda'), out[1]), 'to the device'),
    (VisionTransformer, 'classify', small, lambda logits: logits[logits[:, 0].isfinite()], 'mask'),
    (VisionTransformer, 'classify', small, lambda logits: logits.cpu().cuda_(), 'to the host'),
    (FiniteGuard, '_before_step', small, lambda _: torch.ones((), device='cuda').item() and None, 'number'),
]


@pytest.mark.parametrize('owner, name, config, change, kind', PLANTED, ids=[f'{p[1]}_{p[4]}' for p in PLANTED])
def test_a_wait_that_no_list_has(owner, name, config, change, kind, monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'cuda_', lambda tensor: tensor.to('cuda', non_blocking=True), raising=False)
    faulty(monkeypatch, owner, name, lambda out, *args: change(out))
    found = faults(ran(config()))
    assert found and all(sync.endswith(kind) and f'{__name__} <lambda>' in sync for sync in found), found


def test_an_average_on_the_cpu(monkeypatch):
    def to_cpu(_, self, runner):
        for parameter in self.ema_model.module.parameters():
            parameter.data = parameter.data.cpu()

    faulty(monkeypatch, EMAHook, 'before_run', to_cpu)
    with pytest.raises(AssertionError, match=r'the average of vit\.\S+ is on cpu'):
        ran(small())


def test_an_average_of_weights_that_wait_on_the_cpu(monkeypatch):
    monkeypatch.setattr(EMAHook, '_leave_out_waiting', lambda self: None)
    with pytest.raises(AssertionError, match=r'the average of meta\.\S+ is on cuda'):
        ran(load_config(ROOT / 'configs/cifar100/deit_t_32_incub.py'))


def test_draws_of_the_other_device(monkeypatch):
    monkeypatch.setattr('mmincubation.incubation.phase_run.generator_of', lambda device, *key: torch.Generator())
    with pytest.raises(RuntimeError, match='generator'):
        ran(load_config(ROOT / 'configs/imagenet/vit_b_incub.py'))


def test_numpy_of_what_is_on_the_device(monkeypatch):
    faulty(monkeypatch, ClsDataPreprocessor, 'forward', lambda data, *args: data['labels'].numpy() and data)
    with pytest.raises(TypeError, match='numpy'):
        ran(small())
