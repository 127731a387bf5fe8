"""Weight files: safe reading, atomic writing, key names, strict loading."""
import os
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmincubation.checkpoints import files, infer_arch, load_strict, read_tensors, read_vit, vit_shapes, write_tensors
from mmincubation.errors import CheckpointError
from mmincubation.hashes import digest, sha256_of
from mmincubation.models import Arch, Division, VisionTransformer

ARCH = Arch(embed_dim=16, depth=3, num_heads=2, patch_size=4, img_size=16, num_classes=5)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return VisionTransformer(ARCH)


class Evil:
    """A pickle that makes a folder when it is executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path, )


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_write_read_with_header(tmp_path, vit):
    path = tmp_path / 'new' / 'a.safetensors'
    header = dict(kind='vit', arch=ARCH.to_dict(), division=[1, 2], note='ä "quoted" \\')
    write_tensors(path, vit.state_dict(), header)
    tensors, read = read_tensors(path)
    assert read == header and equal(tensors, vit.state_dict())
    assert os.listdir(path.parent) == ['a.safetensors']


def test_file_mode_follows_umask(tmp_path):
    path, plain = tmp_path / 'a.safetensors', tmp_path / 'plain'
    write_tensors(path, dict(a=torch.ones(1)), {})
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_equal_content_gives_equal_bytes(tmp_path):
    path, seen = tmp_path / 'a.safetensors', set()
    for _ in range(8):  # the library alone writes its metadata in random order
        write_tensors(path, dict(a=torch.ones(3), b=torch.zeros(2)), dict(kind='vit'))
        seen.add(sha256_of(path))
    assert len(seen) == 1


def test_write_shared_and_strided(tmp_path):
    base = torch.arange(12.).view(3, 4)
    tensors = dict(a=base, same=base, t=base.t(), row=base[1], scalar=torch.tensor(3), p=nn.Parameter(base[:, 1]))
    write_tensors(tmp_path / 'a.safetensors', tensors, {})
    assert equal(read_tensors(tmp_path / 'a.safetensors')[0], tensors)


@pytest.mark.parametrize('step', ['save_file', 'os.fsync', 'os.replace'])
def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / 'a.safetensors'
    write_tensors(path, dict(a=torch.ones(2)), dict(v=1))

    def fail(*args):
        raise OSError('disk is full')

    monkeypatch.setattr(step if '.' in step else f'{files.__name__}.{step}', fail)
    with pytest.raises(CheckpointError, match='a.safetensors: cannot be written .disk is full.*needs 8 bytes'):
        write_tensors(path, dict(a=torch.zeros(2)), dict(v=2))
    monkeypatch.undo()
    tensors, header = read_tensors(path)
    assert header == dict(v=1) and tensors['a'].sum() == 2 and os.listdir(tmp_path) == ['a.safetensors']


def test_digest_ignores_format_and_order(tmp_path, vit):
    state = vit.state_dict()
    write_tensors(tmp_path / 'a.safetensors', state, {})
    torch.save(dict(reversed(state.items())), tmp_path / 'a.pth')
    assert digest(read_tensors(tmp_path / 'a.safetensors')[0]) == digest(read_tensors(tmp_path / 'a.pth')[0])


def test_digest_sees_name_type_shape_value():
    a = torch.arange(4.)
    others = [dict(b=a), dict(a=a.double()), dict(a=a.view(2, 2)), dict(a=a + 1), dict(a=a.view(torch.int32)), {}]
    assert len({digest(t) for t in [dict(a=a), *others]}) == 1 + len(others)
    assert digest(dict(a=a.view(2, 2).t())) == digest(dict(a=a.view(2, 2).t().contiguous()))
    assert re.fullmatch('[0-9a-f]{64}', digest(dict(a=a.bfloat16(), s=torch.tensor(True))))


def test_unusable_files(tmp_path):
    cases = {
        'missing.pth': (None, 'does not exist'),
        'empty.pth': (b'', 'empty'),
        'page.pth': (b'\n<!DOCTYPE html><html>not found</html>', 'web page'),
        'page.safetensors': (b'<html>', 'web page'),
        'pointer.safetensors': (b'version https://git-lfs.github.com/spec/v1\noid sha256:00', 'git lfs pull'),
        'noise.pth': (b'abcdef' * 100, r"no weight file .600 bytes, it begins with b'abcdefab'"),
        'noise.safetensors': (b'abcdef' * 100, 'no weight file'),
        'a.npz': (b'abcdef', 'no weight file'),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=message) as error:
            read_tensors(tmp_path / name)
        assert name in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['a.safetensors', 'a.pth'])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    tensors = dict(a=torch.rand(1000))
    write_tensors(path, tensors, {}) if name.endswith('s') else torch.save(tensors, path)
    for size in (5, 100, path.stat().st_size - 1):
        cut = tmp_path / f'cut_{name}'
        cut.write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match=f'cut_{name}:? (is truncated|damaged|is no weight file .5 bytes)'):
            read_tensors(cut)


@pytest.mark.parametrize('header', ['[1]', '3', '{'])
def test_damaged_header(tmp_path, header):
    save_file(dict(a=torch.ones(1)), tmp_path / 'a.safetensors', {'mmincubation': header})
    with pytest.raises(CheckpointError, match='a.safetensors: damaged'):
        read_tensors(tmp_path / 'a.safetensors')


def test_not_a_dict(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='holds a list'):
        read_tensors(tmp_path / 'a.pth')


def write_evil(kind, path, evil):
    if kind == 'zip':
        torch.save(dict(model=dict(a=torch.ones(1)), x=evil), path)
    else:
        path.write_bytes(pickle.dumps(dict(x=evil), protocol=int(kind)))


@pytest.mark.parametrize('kind', ['zip', '2', '4'])
@pytest.mark.parametrize('name', ['a.pth', 'a.pt', 'a.bin', 'a.safetensors'])
def test_malicious_pickle_is_refused_and_not_executed(tmp_path, kind, name):
    done = tmp_path / 'executed'
    write_evil(kind, tmp_path / name, Evil(done))
    with pytest.raises(CheckpointError, match='safetensors') as error:
        read_vit(tmp_path / name)
    assert not done.exists()
    if kind == 'zip' and name != 'a.safetensors':
        assert re.search(r'asks for \w+\.mkdir, .* nothing was executed', str(error.value))
        torch.load(tmp_path / name, weights_only=False)
        assert done.exists()  # the pickle is a live one


def test_read_vit_formats(tmp_path, vit):
    state = vit.state_dict()
    stages = {f'stages.{i}.{k}': v for i, part in enumerate(local_stages(state, [1, 2])) for k, v in part.items()}
    prefixed = {f'vit.{k}': v for k, v in state.items()}
    target = {f'target.{k}': v for k, v in state.items()} | {f'meta.{k}': v + 1 for k, v in state.items()}
    cases = dict(
        bare=state, deit=dict(model=state), epoch=dict(model=state, epoch=3, optimizer=dict(state={}, param_groups=[])),
        ddp={f'module.{k}': v for k, v in state.items()},
        e2e=dict(meta=dict(epoch=1), state_dict=prefixed),
        e2e_ddp=dict(state_dict={f'module.{k}': v for k, v in prefixed.items()}),
        incubation=dict(state_dict=target),
        doubled=dict(model={**state, **stages}),
        public=dict(model={**state, **stages}, model_stages=local_stages(state, [1, 2]), epoch=99))
    for name, content in cases.items():
        torch.save(content, tmp_path / f'{name}.pth')
        tensors, header = read_vit(tmp_path / f'{name}.pth')
        assert equal(tensors, state) and header == {}, name


def local_stages(state, depths):
    """What the public code saves as `model_stages`."""
    stages, division = [], Division(tuple(depths))
    for module in range(len(division)):
        start = division.span(module).start
        stages.append({
            re.sub(r'^blocks\.(\d+)', lambda m, start=start: f'blocks.{int(m[1]) - start}', key): value
            for key, value in division.entries_of(state, module).items()})
    return stages


@pytest.mark.parametrize('content', [
    dict(state_dict={'backbone.conv.weight': torch.ones(1)}), dict(model={'conv.weight': torch.ones(1)}),
    {'conv.weight': torch.ones(1)}, dict(epoch=1), {}, dict(model_stages=[1, 2]), dict(state_dict=[1], model=3)])
def test_read_vit_unknown_format(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth: no ViT in a known format; its first keys') as error:
        read_vit(tmp_path / 'a.pth')
    if 'conv' in str(content):
        assert 'conv.weight' in str(error.value)


def test_read_vit_refuses_a_part(tmp_path, vit):
    write_tensors(tmp_path / 'a.safetensors', vit.state_dict(), dict(kind='part', module=1))
    with pytest.raises(CheckpointError, match='module 1 alone.*tools/assemble.py'):
        read_vit(tmp_path / 'a.safetensors')


def test_load_strict_report(tmp_path, vit):
    path = tmp_path / 'a.safetensors'
    write_tensors(path, vit.state_dict(), {})
    other = VisionTransformer(ARCH)
    report = load_strict(other, read_vit(path)[0], source=str(path))
    assert equal(other.state_dict(), vit.state_dict())
    count = sum(p.numel() for p in vit.parameters())
    keys = len(vit.state_dict())
    assert report == dict(
        path=str(path), sha256=sha256_of(path),
        coverage=f'{keys}/{keys} keys, 100.0 % of {count / 1e3:.1f} k parameters')
    assert load_strict(other, vit.state_dict(), source='memory')['sha256'] is None


def test_load_strict_drop_and_fresh(vit):
    other = VisionTransformer(Arch.parse(dict(ARCH.to_dict(), num_classes=7)))
    head = other.head.weight.clone()
    report = load_strict(other, vit.state_dict(), source='f', drop=('head', 'absent'), fresh=('head', ))
    assert torch.equal(other.head.weight, head) and torch.equal(other.norm.bias, vit.norm.bias)
    assert equal(other.blocks.state_dict(), vit.blocks.state_dict())
    keys = len(vit.state_dict())
    assert report['coverage'].startswith(f'{keys - 2}/{keys} keys, 9')
    assert report['coverage'].endswith('; dropped by name: head.weight, head.bias; fresh: head.weight, head.bias')


def test_almost_all_is_not_100_percent():
    module = nn.ParameterDict(dict(a=torch.zeros(100_000), b=torch.zeros(1)))
    assert '1/2 keys, 99.9 %' in load_strict(module, dict(a=torch.ones(100_000)), source='f', fresh=('b', ))['coverage']


def changed(vit, drop=(), **extra):
    return {k: v for k, v in vit.state_dict().items() if not any(d in k for d in drop)} | extra


@pytest.mark.parametrize(('change', 'options', 'message'), [
    (dict(drop=['norm.bias']), {}, r': 1 missing: norm.bias 16$'),
    (dict(drop=['qkv.bias']), {}, r'qkv_bias=False .the model has True.; set arch .* norm_eps that belongs to it.*'
     r'3 missing: blocks.0.attn.qkv.bias 48'),
    (dict(extra=torch.ones(2, 3)), {}, r'1 unexpected: extra 2x3'),
    (dict(pos_embed=torch.zeros(1, 26, 16)), {}, r'img_size=20 .the model has 16.*1 misshaped: pos_embed 1x26x16 in '
     r'the file, 1x17x16 '),
    (dict(head_extra=torch.ones(1)), dict(drop=['head'], fresh=['head']), 'unexpected: head_extra'),
    ({}, dict(drop=['head']), '2 missing: head.weight 5x16, head.bias 5'),
    ({}, dict(fresh=['head']), '2 unexpected: head.weight 5x16'),
    (dict(drop=['blocks']), {}, r'36 missing: (blocks\S+ \S+, ){7}blocks\S+ \S+ and 28 more'),
])
def test_load_strict_refuses_and_changes_nothing(vit, change, options, message):
    other = VisionTransformer(ARCH)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as error:
        load_strict(other, changed(vit, **change), source='weights.pth', **options)
    assert str(error.value).startswith('weights.pth does not fit') and '\n' not in str(error.value)
    assert equal(other.state_dict(), before)


def test_load_strict_head_and_bias_hints(vit):
    other = VisionTransformer(Arch.parse(dict(ARCH.to_dict(), num_classes=7, qkv_bias=False)))
    with pytest.raises(CheckpointError, match=r'qkv_bias=True .the model has False., num_classes=5 .the model has 7'):
        load_strict(other, vit.state_dict(), source='f')


def test_infer_arch(vit):
    fields, note = infer_arch(vit.state_dict())
    known = {k: v for k, v in ARCH.to_dict().items() if k not in ('num_heads', 'norm_eps', 'init_values')}
    assert fields == known and 'width 16' in note
    assert vit_shapes(fields) == {name: value.shape for name, value in vit.state_dict().items()}


def test_infer_arch_names_heads_of_known_widths():
    huge = {k: torch.empty(v, device='meta') for k, v in vit_shapes(Arch.parse('vit_huge').to_dict()).items()}
    fields, note = infer_arch(huge)
    assert (fields['num_heads'], fields['norm_eps'], fields['qkv_bias'], fields['img_size']) == (16, 1e-5, False, 224)
    assert 'from vit_huge' in note
    biased = huge | {'blocks.0.attn.qkv.bias': torch.empty(3840, device='meta')}
    fields, note = infer_arch(biased)  # timm's ViT-H is another one
    assert (fields['num_heads'], fields['norm_eps'], fields['qkv_bias']) == (16, 1e-6, True) and "timm's ViT-H" in note


def test_headers_of_earlier_versions_have_todays_names(tmp_path):
    """Files keep their use when a field is renamed; configs are told."""
    old = {dict(embed_dim='dim', num_heads='heads').get(k, k): v for k, v in ARCH.to_dict().items()}
    write_tensors(tmp_path / 'a.safetensors', {'x': torch.zeros(1)}, dict(kind='vit', arch=old))
    assert Arch.parse(read_tensors(tmp_path / 'a.safetensors')[1]['arch']) == ARCH
