"""The identities of the method, on ViTs small enough to check bit for bit."""
import copy

import pytest
import torch
from safetensors.torch import load_file

from mmincubation.checkpoints import write_tensors
from mmincubation.incubation import IncubationModel, assemble, begin_module, split
from mmincubation.incubation.phases import Phase, block_forwards, read_phases, select_phases
from mmincubation.models import Arch, Division, VisionTransformer
from tests.helpers.toy import begin_phase

ARCH = dict(embed_dim=16, depth=6, num_heads=2, patch_size=4, img_size=16, num_classes=5)
DIVISIONS = [1, 2, 3, 6, [1, 5], [3, 1, 2]]
META_DEPTHS = [*((modules, 1) for modules in DIVISIONS), (2, 2), (2, 3), (3, 2), ([2, 4], 2), (1, 4)]


def build(modules=3, meta_depth=1, seed=0, **arch) -> IncubationModel:
    torch.manual_seed(seed)
    return IncubationModel(dict(ARCH, **arch), modules, meta_depth=meta_depth)


def batch(n=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 16, 16, generator=generator), torch.arange(n) % 5


def gradients(model, images, labels) -> dict:
    model.zero_grad()
    model(images, labels, mode='loss')['loss'].backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('modules, meta_depth', META_DEPTHS)
def test_grow_computes_the_meta_models_function(modules, meta_depth):
    model, (images, _) = build(modules, meta_depth).eval(), batch()
    for module in range(len(model.division)):
        begin_module(model.target, model.meta, model.division, module, 'grow')
    meta = model.meta(images)
    torch.testing.assert_close(model.target(images), meta, rtol=0, atol=1e-6)
    for module in range(len(model.division)):
        begin_phase(model, f'module_{module}')
        torch.testing.assert_close(model.logits(images), meta, rtol=0, atol=1e-6)


@pytest.mark.parametrize('modules, meta_depth, sources', [
    ([2, 1, 3], 1, (0, 0, 1, 2, 2, 2)), (2, 2, (0, 0, 1, 2, 2, 3)), ([2, 4], 2, (0, 1, 2, 2, 3, 3))])
def test_stack_copies_each_meta_block_to_its_share_of_its_module(modules, meta_depth, sources):
    model = build(modules, meta_depth)
    for module in range(len(model.division)):
        begin_module(model.target, model.meta, model.division, module, 'stack')
    meta = model.meta.state_dict()
    for key, value in model.target.state_dict().items():
        if key.startswith('blocks.'):
            block, _, rest = key.removeprefix('blocks.').partition('.')
            key = f'blocks.{sources[int(block)]}.{rest}'
        assert torch.equal(value, meta[key]), key


def test_starts_copy_what_they_say():
    model = build([2, 1, 3])
    before = copy.deepcopy(model.target.state_dict())
    for module in range(3):
        begin_module(model.target, model.meta, model.division, module, 'random')
    assert all(torch.equal(before[k], v) for k, v in model.target.state_dict().items())
    for module in range(3):
        begin_module(model.target, model.meta, model.division, module, 'ends')
    meta, target = model.meta.state_dict(), model.target.state_dict()
    for key, value in target.items():
        expected = before[key] if key.startswith('blocks.') else meta[key]
        assert torch.equal(value, expected), key
    with pytest.raises(ValueError, match="unknown start 'grown'.*grow"):
        begin_module(model.target, model.meta, model.division, 0, 'grown')


@pytest.mark.parametrize('modules, meta_depth', META_DEPTHS)
def test_hybrid_is_the_chain_of_its_parts(modules, meta_depth):
    model, (images, _) = build(modules, meta_depth).eval(), batch()
    assert len(model.meta.blocks) == meta_depth * len(model.division)
    for module, depth in enumerate(model.division.depths):
        begin_phase(model, f'module_{module}')
        tokens = (model.target if module == 0 else model.meta).stem(images)
        for j in range(len(model.division)):
            own, meta = model.division.span(j), range(meta_depth * j, meta_depth * (j + 1))
            for block in [model.target.blocks[i] for i in own] if j == module else [model.meta.blocks[i] for i in meta]:
                tokens = block(tokens)
        last = model.target if module == len(model.division) - 1 else model.meta
        assert torch.equal(model.logits(images), last.classify(tokens))
        assert block_forwards(model.division, Phase(f'module_{module}', 1)) == \
            depth + meta_depth * (len(model.division) - 1)


def test_assembled_forward_is_the_chain_of_parts(tmp_path):
    model, (images, _) = build([3, 1, 2]).eval(), batch()
    paths = []
    for module in range(3):
        begin_phase(model, f'module_{module}')
        name, tensors, header = model.export()
        paths.append(tmp_path / f'{name}.safetensors')
        write_tensors(paths[-1], tensors, header)
    tensors, header = assemble(paths)
    vit = VisionTransformer(header['arch']).eval()
    vit.load_state_dict(tensors)
    tokens = model.target.stem(images)
    for module in range(3):
        for i in model.division.span(module):
            tokens = model.target.blocks[i](tokens)
    assert torch.equal(vit(images), model.target.classify(tokens))


@pytest.mark.parametrize('modules', DIVISIONS)
def test_split_save_assemble_is_the_identity(modules, tmp_path):
    target = build(modules).target.state_dict()
    division = Division.of(6, modules)
    parts = split(target, division)
    assert sum(len(p) for p in parts) == len(target)
    for i, part in enumerate(parts):
        write_tensors(tmp_path / f'{i}.safetensors', part, dict(
            kind='part', module=i, division=list(division.depths), arch=Arch.parse(ARCH).to_dict(), meta_digest='m'))
    tensors, _ = assemble([tmp_path / f'{i}.safetensors' for i in range(len(parts))])
    assert tensors.keys() == target.keys()
    assert all(torch.equal(tensors[k], target[k]) for k in target)
    write_tensors(tmp_path / 'all.safetensors', tensors, {})
    assert all(torch.equal(v, target[k]) for k, v in load_file(tmp_path / 'all.safetensors').items())


@pytest.mark.parametrize('module', [0, 1, 2])
def test_freezing_downstream_meta_leaves_gradients_bit_identical(module):
    model, (images, labels) = build(), batch()
    begin_phase(model, f'module_{module}')
    frozen = gradients(model, images, labels)
    assert {n for n, _ in model.named_parameters() if n in frozen} == \
        {f'target.{k}' for k in model.target.state_dict() if model.division.module_of(k) == module}
    for parameter in model.meta.parameters():  # as the public code does
        parameter.requires_grad_(True)
    free = gradients(model, images, labels)
    assert len(free) > len(frozen) or module == 2
    for name, gradient in frozen.items():
        assert torch.equal(gradient, free[name]), name


@pytest.mark.parametrize('phase', ['meta', 'module_0', 'module_1', 'module_2', 'finetune'])
def test_only_what_the_phase_trains_moves(phase):
    model, (images, labels) = build(), batch()
    begin_phase(model, phase)
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    gradients(model, images, labels)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != (id(parameter) in trained), name


def test_phases_cover_the_target_once():
    model = build([2, 1, 3])
    seen = []
    for module in range(3):
        begin_phase(model, f'module_{module}')
        seen += [n for n, p in model.named_parameters() if p.requires_grad]
    assert sorted(seen) == sorted(f'target.{k}' for k, _ in model.target.named_parameters())


def rates(blocks) -> list[float]:
    return [getattr(b.drop_path1, 'drop_prob', 0.) for b in blocks]


def test_drop_path_ramps_are_the_documented_ones():
    model = build()  # 6 blocks, 3 modules of 2, hybrid of 4
    begin_phase(model, 'meta', 0.2)
    assert rates(model.meta.blocks) == pytest.approx([0, .1, .2])
    begin_phase(model, 'finetune', 0.5)
    assert rates(model.target.blocks) == pytest.approx([0, .1, .2, .3, .4, .5])
    begin_phase(model, 'module_1', 0.5, 'clean')
    assert rates(model.meta.blocks) == [0, 0, 0]
    assert rates(model.target.blocks)[2:4] == pytest.approx([.2, .3])
    begin_phase(model, 'module_1', 0.3, 'paper_code')
    assert rates(model.target.blocks)[2:4] == pytest.approx([.1, .2])
    assert rates(model.meta.blocks) == pytest.approx([0, 0, .3])
    begin_phase(model, 'module_0', 0.3, 'paper_code')
    assert rates(model.target.blocks)[:2] == pytest.approx([0, .1])
    assert rates(model.meta.blocks)[1:] == pytest.approx([.2, .3])


def test_same_seed_same_target_as_e2e():
    torch.manual_seed(3)
    e2e = VisionTransformer(ARCH).state_dict()
    target = build(seed=3).target.state_dict()
    assert all(torch.equal(e2e[k], target[k]) for k in e2e)


@pytest.mark.parametrize('only, epochs, refused', [
    ('finetune', (1, 0), 'module_1'), ('finetune', (0, 1), 'module_0'), (None, (1, 0), None),
    ('module_0', (1, 0), None), ('finetune', (0, 0), None), ('finetune', (1, 1), None)])
def test_fine_tuning_alone_needs_a_run_of_each_module_or_of_none(only, epochs, refused):
    """One run with all phases has the modules that do not incubate; without any, it begins with the meta model."""
    modules = {f'module_{i}': dict(epochs=number) for i, number in enumerate(epochs)}
    phases = read_phases(dict(meta=dict(epochs=1), finetune=dict(epochs=1), **modules), 2)
    if refused is None:
        assert select_phases(phases, only)[-1].name == (only or 'finetune')
        return
    with pytest.raises(ValueError, match=f'{refused} has epochs=0, so no run writes its file: train without --phase'):
        select_phases(phases, only)
