"""Activation checkpointing of blocks: the same gradients, fewer bytes; and attention, fused or not."""
import pytest
import torch

from bench.memory import classifier, measured
from mmincubation.check import memory
from mmincubation.models import ViTClassifier
from mmincubation.vit.transformer import VisionTransformer, attention_as_on_gpus, run_blocks

ARCH = dict(embed_dim=48, depth=6, num_heads=3, patch_size=8, img_size=32, num_classes=5)
TINY = dict(embed_dim=96, depth=4, num_heads=3, patch_size=16, img_size=128)


def pictures() -> torch.Tensor:
    return torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def gradients(model, forward, bf16: bool) -> tuple[dict, torch.Tensor]:
    """Of one step, and what the generator draws after it."""
    torch.manual_seed(2)
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        loss = forward(model)
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, torch.rand(1)


def assert_same(a, b) -> None:
    assert a[0].keys() == b[0].keys() and a[1].equal(b[1])
    assert all(a[0][name].equal(gradient) for name, gradient in b[0].items())


@pytest.mark.parametrize('bf16', [False, True])
def test_a_classifier_has_the_same_gradients(bf16):
    found = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = ViTClassifier(ARCH, drop_path_rate=0.5, with_cp=with_cp).train()
        found.append(gradients(model, lambda m: m(pictures(), torch.arange(6) % 5, mode='loss')['loss'], bf16))
    assert_same(*found)
    assert len(found[0][0]) == len(list(model.parameters()))


@pytest.mark.parametrize('bf16', [False, True])
def test_so_has_a_module_between_frozen_blocks(bf16):
    """As in incubation: before it no graph, behind it gradients of inputs alone."""
    found = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = VisionTransformer(ARCH, drop_path_rate=0.5).train()
        for frozen in (*model.blocks[:2], *model.blocks[4:], model.head, model.norm):
            frozen.requires_grad_(False)

        def forward(model, with_cp=with_cp):
            with torch.no_grad():
                tokens = run_blocks(model.blocks[:2], model.stem(pictures()), with_cp)
            return model.classify(run_blocks(model.blocks[2:], tokens, with_cp)).float().square().sum()

        found.append(gradients(model, forward, bf16))
    assert_same(*found)
    assert {name.split('.')[1] for name in found[0][0]} == {'2', '3'}


def test_blocks_run_again_in_the_backward_pass_of_a_training_step_only():
    model, seen = VisionTransformer(ARCH, with_cp=True).train(), []
    for block in model.blocks:
        block.norm1.register_forward_hook(lambda *_: seen.append(1))
    model.eval()(pictures()).sum().backward()
    with torch.no_grad():
        model.train()(pictures())
    assert len(seen) == 12
    model(pictures()).sum().backward()
    assert len(seen) == 24


def test_the_estimate_sees_it_and_is_right():
    cfg = classifier(TINY, 8)
    plain = memory.estimate(cfg)[0]
    cfg.model.with_cp = True
    lean = memory.estimate(cfg)[0]
    assert lean.kept < plain.kept / 3 and lean.peak < plain.peak
    assert lean.peak == pytest.approx(measured(cfg), rel=memory.ERROR / 100)


def test_attention_in_bfloat16_is_fused_on_gpus_alone():
    """And computes the same."""
    vit = VisionTransformer(TINY).eval()
    images = torch.randn(2, 3, TINY['img_size'], TINY['img_size'])
    with torch.no_grad():
        vit(images)
        assert all(block.attn.fused_attn for block in vit.blocks)
        with torch.autocast('cpu', torch.bfloat16):
            several = vit(images)
            assert not any(block.attn.fused_attn for block in vit.blocks)
            with attention_as_on_gpus():
                one = vit(images)
    torch.testing.assert_close(one, several, atol=0.05, rtol=0.05)
