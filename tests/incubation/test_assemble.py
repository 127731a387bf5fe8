"""Splitting a ViT into parts and joining parts."""
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file

from mmincubation.checkpoints import CheckpointError, digest, load_strict, read_vit, sha256_of, write_tensors
from mmincubation.incubation.assemble import assemble, split
from mmincubation.models import Arch, Division, VisionTransformer

ARCH = Arch(embed_dim=16, depth=6, num_heads=2, patch_size=4, img_size=16, num_classes=5)


def seeded(arch, seed):
    torch.manual_seed(seed)
    return VisionTransformer(arch).state_dict()


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def save_parts(folder, depths, arch=ARCH, meta_seed=1, change=()):
    """A target's parts as IncubationLoop writes them; returns target tensors and paths."""
    target, division = seeded(arch, 0), Division(tuple(depths))
    meta = digest(seeded(arch.with_depth(len(division)), meta_seed))
    paths = []
    for module, tensors in enumerate(split(target, division)):
        header = dict(kind='part', module=module, division=list(depths), arch=arch.to_dict(), meta_digest=meta,
                      phase=f'module_{module}')
        paths.append(folder / f'module_{module}_last.safetensors')
        write_tensors(paths[-1], tensors, {**header, **dict(change)})
    return target, paths


def save_public(folder, depths, arch=ARCH, meta_seed=1):
    """Checkpoints as the public code writes them while it incubates modules 0..K-1."""
    folder.mkdir(exist_ok=True)
    target, meta = seeded(arch, 0), seeded(arch.with_depth(len(depths)), meta_seed)
    own, frozen = public_stages(target, depths), public_stages(meta, [1] * len(depths))
    paths = []
    for module in range(len(depths)):
        stages = [own[j] if j == module else frozen[j] for j in range(len(depths))]
        doubled = {f'stages.{j}.{key}': value for j, stage in enumerate(stages) for key, value in stage.items()}
        paths.append(folder / f'checkpoint_{module}.pth')
        torch.save(dict(model=doubled, model_stages=stages, epoch=99, optimizer=dict(state={}), scaler={}), paths[-1])
    return target, paths, digest(meta)


def public_stages(tensors, depths):
    division = Division(tuple(depths))
    return [{local(key, division.span(i).start): value for key, value in part.items()}
            for i, part in enumerate(split(tensors, division))]


def local(key, start):
    words = key.split('.')
    return '.'.join(['blocks', str(int(words[1]) - start), *words[2:]]) if words[0] == 'blocks' else key


def compositions(total):
    yield [total]
    for first in range(1, total):
        yield from ([first, *rest] for rest in compositions(total - first))


def test_split_and_merge_every_division_of_four_blocks():
    tensors = seeded(ARCH.with_depth(4), 0)
    for depths in compositions(4):
        parts = split(tensors, Division(tuple(depths)))
        assert len(parts) == len(depths) and sum(map(len, parts)) == len(tensors)
        assert equal({k: v for part in parts for k, v in part.items()}, tensors)


@pytest.mark.parametrize('depths', [[6], [3, 3], [1, 2, 3], [2, 1, 1, 2], [1] * 6])
def test_split_save_assemble_is_the_identity(tmp_path, depths):
    target, paths = save_parts(tmp_path, depths)
    tensors, header = assemble(paths)
    assert equal(tensors, target)
    assert header == dict(
        kind='vit', arch=ARCH.to_dict(), division=depths, parts=[sha256_of(path) for path in paths],
        meta_digest=digest(seeded(ARCH.with_depth(len(depths)), 1)))


@pytest.mark.parametrize('depths', [[6], [3, 3], [1, 2, 3], [2, 1, 1, 2], [1] * 6])
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_public_files(tmp_path, depths, qkv_bias):
    arch = Arch.parse(dict(ARCH.to_dict(), qkv_bias=qkv_bias))
    target, paths, meta_digest = save_public(tmp_path, depths, arch)
    tensors, header = assemble(paths)
    assert equal(tensors, target)
    assert header['division'] == depths and header['kind'] == 'vit'
    assert header['meta_digest'] == (meta_digest if len(depths) > 1 else None)
    unseen = ('num_heads', 'norm_eps', 'init_values')
    assert header['arch'] == {k: v for k, v in arch.to_dict().items() if k not in unseen}
    assert 'num_heads and norm_eps are not in the files' in header['assumed'][0]
    assert ('cannot show' in header['assumed'][-1]) == (len(depths) < 3)


def test_timm_reads_the_assembled_file(tmp_path):
    arch = Arch(embed_dim=192, depth=12, num_heads=3)
    target, paths = save_parts(tmp_path, [3, 4, 3, 2], arch)
    tensors, header = assemble(paths)
    write_tensors(tmp_path / 'vit.safetensors', tensors, header)
    model = timm.create_model('vit_tiny_patch16_224').eval()
    model.load_state_dict(load_file(tmp_path / 'vit.safetensors'), strict=True)
    ours = VisionTransformer(read_vit(tmp_path / 'vit.safetensors')[1]['arch']).eval()
    load_strict(ours, target, source='target')
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(model(images), ours(images), atol=1e-5)


def refusal(paths, *words):
    """The message of the refusal, one line that holds all `words`."""
    with pytest.raises(CheckpointError) as error:
        assemble(paths)
    message = str(error.value)
    assert '\n' not in message
    for word in words:
        assert str(word) in message, message


@pytest.fixture(params=['ours', 'public'])
def parts(request, tmp_path):
    if request.param == 'ours':
        return save_parts(tmp_path, [2, 1, 1, 2])[1]
    return save_public(tmp_path, [2, 1, 1, 2])[1]


def test_refuses_missing(parts):
    refusal([], 'no parts')
    refusal(parts[:3], '3 of 4', 'missing module 3', *parts[:3])
    refusal(parts[:1], 'missing modules 1, 2, 3', parts[0])
    refusal([*parts[:3], parts[0].with_name('gone.pth')], 'gone.pth does not exist')


def test_refuses_too_many_and_duplicates(parts, tmp_path):
    copy = shutil.copy(parts[0], tmp_path / f'copy{parts[0].suffix}')
    refusal([*parts, copy], parts[0], copy, 'both hold module 0')
    refusal([parts[0], copy, *parts[2:]], parts[0], copy)
    refusal([parts[0], parts[0], *parts[2:]], parts[0], 'once')
    refusal([*parts, shutil.copy(parts[1], tmp_path / f'extra{parts[1].suffix}')], 'extra')


@pytest.mark.parametrize('order', [[1, 0, 2, 3], [0, 1, 3, 2], [3, 2, 1, 0], [0, 2, 1, 3]])
def test_refuses_wrong_places(parts, order):
    with pytest.raises(CheckpointError, match='order'):
        assemble([parts[i] for i in order])


def test_names_the_right_order(tmp_path):
    _, paths = save_parts(tmp_path, [3, 3])
    refusal(paths[::-1], f'give them as {paths[0]} {paths[1]}')


def test_public_modules_of_unequal_depth_show_their_place(tmp_path):
    _, paths, _ = save_public(tmp_path, [4, 2])
    refusal(paths[::-1], f'give them as {paths[0]} {paths[1]}')
    _, paths, _ = save_public(tmp_path, [5, 1])
    refusal(paths[::-1], f'give them as {paths[0]} {paths[1]}')
    refusal(paths[1:], 'missing module')


def test_refuses_another_meta_model(tmp_path):
    _, ours = save_parts(tmp_path / 'a', [2, 2, 2])
    _, others = save_parts(tmp_path / 'b', [2, 2, 2], meta_seed=2)
    refusal([ours[0], others[1], ours[2]], ours[0], others[1], 'different meta models')
    _, ours, _ = save_public(tmp_path / 'c', [2, 2, 2])
    _, others, _ = save_public(tmp_path / 'd', [2, 2, 2], meta_seed=2)
    refusal([ours[0], others[1], ours[2]], ours[0], others[1], 'stage 2', 'one frozen meta model')
    refusal([ours[0], ours[1], others[2]], others[2], 'one frozen meta model')


def test_refuses_another_arch_or_division(tmp_path):
    _, ours = save_parts(tmp_path / 'a', [2, 2, 2])
    _, others = save_parts(tmp_path / 'b', [2, 2, 2], Arch.parse(dict(ARCH.to_dict(), norm_eps=1e-5)))
    refusal([ours[0], others[1], ours[2]], 'arch differs', 'norm_eps=1e-06', 'norm_eps=1e-05', ours[0], others[1])
    _, others = save_parts(tmp_path / 'c', [1, 2, 3])
    refusal([ours[0], others[1], ours[2]], 'division differs', '[2, 2, 2]', '[1, 2, 3]', others[1])
    _, others = save_parts(tmp_path / 'd', [3, 3])
    refusal([ours[0], others[1]], '3 modules', 'of 2', others[1])
    _, public, _ = save_public(tmp_path / 'e', [2, 2, 2])
    _, wide, _ = save_public(tmp_path / 'f', [2, 2, 2], Arch.parse(dict(ARCH.to_dict(), embed_dim=32)))
    refusal([public[0], wide[1], public[2]], wide[1])


def test_refuses_a_mixture(tmp_path):
    _, ours = save_parts(tmp_path, [3, 3])
    _, public, _ = save_public(tmp_path, [3, 3])
    refusal([ours[0], public[1]], ours[0], public[1], 'one kind')


def test_refuses_what_is_no_part(tmp_path):
    target, paths = save_parts(tmp_path, [3, 3])
    write_tensors(tmp_path / 'whole.safetensors', target, dict(kind='vit'))
    refusal([tmp_path / 'whole.safetensors', paths[1]], 'whole.safetensors: not a part (kind: vit)')
    torch.save(dict(model=target), tmp_path / 'deit.pth')
    refusal([tmp_path / 'deit.pth', paths[1]], 'deit.pth: not a part', 'model_stages')


@pytest.mark.parametrize('change', [
    dict(module=2), dict(module='0'), dict(arch={}), dict(arch=dict(width=3)), dict(division=[3, 2]),
    dict(division=3), dict(meta_digest=None)])
def test_refuses_a_damaged_header(tmp_path, change):
    _, paths = save_parts(tmp_path, [3, 3], change=change)
    refusal(paths, f'{paths[0]}: damaged header', 'run its phase again')


@pytest.mark.parametrize(('edit', 'words'), [
    (lambda t: t.pop('norm.bias'), ['missing: norm.bias']),
    (lambda t: t.update({'blocks.0.norm1.bias': t['norm.bias']}), ['unexpected: blocks.0.norm1.bias']),
    (lambda t: t.update({'norm.bias': torch.ones(3)}), ['misshaped: norm.bias (3,), expected (16,)']),
])
def test_refuses_other_tensors_than_the_module_has(tmp_path, edit, words):
    target, paths = save_parts(tmp_path, [3, 3])
    tensors = split(target, Division((3, 3)))[1]
    edit(tensors)
    header = dict(kind='part', module=1, division=[3, 3], arch=ARCH.to_dict(),
                  meta_digest=digest(seeded(ARCH.with_depth(2), 1)))
    write_tensors(paths[1], tensors, header)
    refusal(paths, paths[1], *words)


@pytest.mark.parametrize('edit', [
    lambda stage: stage.pop('head.weight'), lambda stage: stage.pop('norm.bias'),
    lambda stage: stage.update({'blocks.1.mlp.fc1.weight': torch.ones(2, 2)}),
    lambda stage: stage.update({'extra': torch.ones(1)}), lambda stage: stage.update({'extra': 'text'})])
def test_refuses_damaged_public_stages(tmp_path, edit):
    _, paths, _ = save_public(tmp_path, [2, 2, 2])
    content = torch.load(paths[2], weights_only=True)
    edit(content['model_stages'][2])
    torch.save(content, paths[2])
    refusal(paths, tmp_path)
