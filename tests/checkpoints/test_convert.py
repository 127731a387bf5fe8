"""tools/convert.py and what it calls: exact round trips, headers, and errors in one line."""
import os
import subprocess
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mmincubation.checkpoints import (
    CheckpointError,
    inspect_weights,
    open_vit,
    read_tensors,
    sha256_of,
    vit_shapes,
    write_tensors,
)
from mmincubation.checkpoints.convert import convert
from mmincubation.models import Arch, VisionTransformer
from tests.helpers.paths import ROOT
from tests.helpers.weight_files import (
    ARCH,
    DIVISION,
    FILES,
    equal,
    headless,
    hf_names,
    mmpretrain_names,
    random_vit,
    stages_of,
    write_file,
)

TOOL = str(ROOT / 'tools/convert.py')


@pytest.mark.parametrize('name', FILES)
def test_every_format_becomes_a_file_with_a_header(tmp_path, name):
    src, state = write_file(tmp_path, name)
    dst = tmp_path / 'new' / 'vit.safetensors'
    done = convert(str(src), dst)
    tensors, header = read_tensors(dst)
    assert equal(tensors, state)
    assert header['kind'] == 'vit' and header['arch'] == done.arch
    assert header['source'] == dict(sha256=sha256_of(src), format=FILES[name][0])
    assert header.get('division') == done.division == (DIVISION if name.startswith(('official', 'ours')) else None)
    assert (done.source, done.keys, done.sha256) == (FILES[name][0], len(state), sha256_of(dst))
    info = inspect_weights(dst)
    assert info.format == 'mmincubation' and info.arch == done.arch and info.assumed == header.get('assumed', [])
    assert vit_shapes(header['arch']) == {key: value.shape for key, value in state.items()}


def convert_there_and_back(tmp_path, state, to, suffix):
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / 'timm.safetensors')
    convert(str(tmp_path / 'timm.safetensors'), tmp_path / f'other{suffix}', to)
    convert(str(tmp_path / f'other{suffix}'), tmp_path / 'back.safetensors')
    return open_vit(tmp_path / f'other{suffix}'), load_file(tmp_path / 'back.safetensors')


@pytest.mark.parametrize('to, suffix', [('timm', '.safetensors'), ('mmpretrain', '.safetensors'),
                                        ('mmpretrain', '.pth'), ('hf', '.safetensors'), ('official', '.pth')])
@pytest.mark.parametrize('change', [{}, dict(qkv_bias=False), dict(num_classes=0), dict(init_values=.1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_round_trips_are_exact(tmp_path, to, suffix, change, dtype):
    vit = random_vit(Arch.parse({**ARCH.to_dict(), **change, 'num_classes': 5}))
    state = {key: value.to(dtype) for key, value in vit.state_dict().items()
             if change.get('num_classes', 1) or not key.startswith('head')}
    if to == 'hf' and 'init_values' in change:
        with pytest.raises(CheckpointError, match=r'hf has no name for blocks\.0\.ls1\.gamma \(8 such'):
            convert_there_and_back(tmp_path, state, to, suffix)
        return
    other, back = convert_there_and_back(tmp_path, state, to, suffix)
    assert other.format == ('mmincubation' if to == 'timm' else to)
    assert equal(back, state)


def test_names_are_those_of_the_other_programs(tmp_path):
    src, state = write_file(tmp_path, 'timm.pth')
    for to, expected in (('hf', hf_names(state)), ('mmpretrain', mmpretrain_names(state))):
        convert(str(src), tmp_path / f'{to}.safetensors', to)
        assert equal(load_file(tmp_path / f'{to}.safetensors'), expected)
    convert(str(src), tmp_path / 'm.pth', 'mmpretrain')
    assert equal(torch.load(tmp_path / 'm.pth', weights_only=True)['state_dict'], mmpretrain_names(state))


def test_official_files_are_those_of_the_public_code(tmp_path):
    src, state = write_file(tmp_path, 'timm.pth')
    done = convert(str(src), tmp_path / 'a.pth', 'official')
    assert done.division == [1, 1, 1, 1] and '4 equal modules, as in the paper' in done.assumed[-1]
    done = convert(str(src), tmp_path / 'b.pth', 'official', modules=2)
    assert done.division == [2, 2] and not any('modules' in line for line in done.assumed)
    content = torch.load(tmp_path / 'b.pth', weights_only=True)
    assert [equal(a, b) for a, b in zip(content['model_stages'], stages_of(state, [2, 2]), strict=True)] == [True] * 2
    assert len(content['model']) == 2 * len(state) and 'stages.1.blocks.0.norm1.weight' in content['model']
    assert (tmp_path / 'b.pth').stat().st_size < 2 * src.stat().st_size  # twice by name, once on the disk


@pytest.mark.parametrize('name', ['ours.safetensors', 'official.pth'])
def test_the_files_own_division_is_used(tmp_path, name):
    src, state = write_file(tmp_path, name)
    assert convert(str(src), tmp_path / 'a.pth', 'official').division == DIVISION
    stages = torch.load(tmp_path / 'a.pth', weights_only=True)['model_stages']
    assert [equal(a, b) for a, b in zip(stages, stages_of(state), strict=True)] == [True, True]
    with pytest.raises(CheckpointError, match=r'--modules 4: .* has 2 modules, of \[1, 3\] blocks; leave it out'):
        convert(str(src), tmp_path / 'b.pth', 'official', modules=4)


def test_equal_sources_give_equal_bytes(tmp_path):
    src, _ = write_file(tmp_path, 'mae.pth')
    for to, suffix in (('timm', '.safetensors'), ('official', '.pth')):
        hashes = {convert(str(src), tmp_path / f'{i}{suffix}', to).sha256 for i in range(2)}
        assert len(hashes) == 1


def test_our_headers_keep_what_they_say(tmp_path):
    header = dict(kind='vit', arch=ARCH.to_dict(), meta_digest='d', parts=['p'], assumed=['an old assumption'])
    write_tensors(tmp_path / 'a.safetensors', random_vit().state_dict(), header)
    done = convert(str(tmp_path / 'a.safetensors'), tmp_path / 'b.pth', 'mmpretrain')
    assert header.items() <= open_vit(tmp_path / 'b.pth').header.items() and done.assumed == ['an old assumption']


def test_timm_loads_the_output_strictly(tmp_path):
    """DeiT-Ti through transformers' names and back: timm's own model takes the file and computes the same."""
    torch.manual_seed(0)
    model = timm.create_model('deit_tiny_patch16_224', depth=2, num_classes=7).eval()
    save_file({key: value.clone() for key, value in hf_names(model.state_dict()).items()}, tmp_path / 'hf.safetensors')
    done = convert(str(tmp_path / 'hf.safetensors'), tmp_path / 'vit.safetensors', arch=dict(norm_eps=1e-6))
    assert done.source == 'hf' and done.arch['num_heads'] == 3
    other = timm.create_model('deit_tiny_patch16_224', depth=2, num_classes=7).eval()
    other.load_state_dict(load_file(tmp_path / 'vit.safetensors'), strict=True)
    ours = VisionTransformer(read_tensors(tmp_path / 'vit.safetensors')[1]['arch']).eval()
    ours.load_state_dict(load_file(tmp_path / 'vit.safetensors'))
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(other(images), model(images))
        torch.testing.assert_close(ours(images), model(images), atol=1e-5, rtol=1e-5)


# --- what is refused

def state_with(**change):
    return {**random_vit().state_dict(), **change}


@pytest.mark.parametrize('dst, to, options, message', [
    ('vit.pth', 'timm', {}, r'vit\.pth: with --to timm the name must end in \.safetensors'),
    ('vit.safetensors', 'official', {}, r'must end in \.pth'),
    ('vit.bin', 'mmpretrain', {}, r'must end in \.pth or \.safetensors'),
    ('there.safetensors', 'timm', {}, r'there\.safetensors: exists already; choose another name'),
    ('./src.safetensors', 'timm', {}, r'src\.safetensors: is the source itself; choose another name'),
    ('a.pth', 'official', dict(modules=3), 'src.safetensors: 4 blocks do not divide into 3 equal.* --modules K'),
    ('a.safetensors', 'timm', dict(modules=2), '--modules 2: only --to official divides; leave it out'),
    ('a.safetensors', 'timm', dict(arch=dict(head=2)), '--arch head: no field of an architecture; nearest: num_heads'),
    ('a.safetensors', 'timm', dict(arch=dict(depth=3)), '--arch depth=3: .*src.safetensors has depth=4; leave it out'),
    ('a.safetensors', 'timm', dict(arch=dict(num_heads=3)), r'no ViT \(embed_dim=16 is not divisible by num_heads=3'),
])
def test_what_cannot_be_is_refused(tmp_path, dst, to, options, message):
    save_file(random_vit().state_dict(), tmp_path / 'src.safetensors')
    (tmp_path / 'there.safetensors').write_text('precious')
    before = {path.name: sha256_of(path) for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=message) as error:
        convert(str(tmp_path / 'src.safetensors'), tmp_path / dst, to, **options)
    assert '\n' not in str(error.value)
    assert {path.name: sha256_of(path) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize('state, message', [
    (state_with(fresh=torch.ones(1)), 'no whole plain ViT .unexpected: fresh.; it cannot be converted'),
    (state_with(**{'blocks.3.norm1.bias': torch.ones(3)}), 'misshaped: blocks.3.norm1.bias'),
    (state_with(pos_embed=torch.ones(1, 15, 16)), 'misshaped: pos_embed'),
    ({key: value for key, value in state_with().items() if key != 'norm.bias'}, 'missing: norm.bias'),
])
def test_other_networks_are_refused(tmp_path, state, message):
    save_file(state, tmp_path / 'src.safetensors')
    with pytest.raises(CheckpointError, match=message):
        convert(str(tmp_path / 'src.safetensors'), tmp_path / 'a.safetensors')


# --- the tool

def test_tool_help_is_quick():
    command = [sys.executable, TOOL, '--help']
    subprocess.run(command, capture_output=True)
    start = time.perf_counter()
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    assert result.returncode == 0 and '--modules' in result.stdout and time.perf_counter() - start < 1


def test_tool_says_what_it_did(tool, tmp_path):
    src, state = write_file(tmp_path, 'mae.pth')
    dst = tmp_path / 'vit.safetensors'
    result = tool(src, dst, '--arch', 'num_heads=2', 'norm_eps=1e-6')
    assert result.returncode == 0, result.stderr
    parameters = sum(value.numel() for value in state.values())
    for text in (f'{src}: mae', 'num_heads=2', 'norm_eps=1e-06', 'assumed: left out by name: ', 'mask_token',
                 'assumed: num_heads=2 norm_eps=1e-06, as given by --arch',
                 f'{dst}: timm, {len(state)} keys, {parameters:,} parameters, sha256 {sha256_of(dst)}'):
        assert text in result.stdout
    assert read_tensors(dst)[1]['arch']['num_heads'] == 2 and 'not in the file' not in result.stdout
    official = tool(dst, tmp_path / 'a.pth', '--to', 'official', '--modules', 2)
    assert official.returncode == 0 and 'division: [2, 2]' in official.stdout


def test_tool_errors_are_one_line(tool, tmp_path):
    src, _ = write_file(tmp_path, 'timm.pth')
    for args in ((src, src), (tmp_path / 'no.pth', tmp_path / 'a.safetensors'), (src, tmp_path / 'a.pth')):
        result = tool(*args)
        assert result.returncode == 2 and result.stdout == ''
        assert result.stderr.startswith('convert.py: error: ') and result.stderr.count('\n') == 1
    assert "'num_heads': write it as FIELD=VALUE" in tool(src, tmp_path / 'a.safetensors', '--arch', 'num_heads').stderr
    assert os.listdir(tmp_path) == ['timm.pth']


# --- pooling

@pytest.mark.parametrize('to, suffix, said', [
    ('hf', '.safetensors', 'take the encoder alone'), ('mmpretrain', '.pth', 'take the encoder alone'),
    ('official', '.pth', 'take the encoder alone'), ('timm', '.safetensors', "global_pool='avg', fc_norm=False")])
def test_a_head_on_the_mean_of_the_patches_is_said(tmp_path, to, suffix, said):
    arch = Arch.parse(dict(ARCH.to_dict(), global_pool='avg'))
    state = random_vit(arch).state_dict()
    for name, tensors in (('vit', state), ('encoder', headless(state))):
        write_tensors(tmp_path / f'{name}.safetensors', tensors, dict(kind='vit', arch=arch.to_dict() | dict(
            num_classes=5 if name == 'vit' else 0)))
        done = convert(str(tmp_path / f'{name}.safetensors'), tmp_path / f'{name}_{to}{suffix}', to)
        assert any(said in line for line in done.assumed) == (name == 'vit')
        assert open_vit(tmp_path / f'{name}_{to}{suffix}').header['arch']['global_pool'] == 'avg'


def test_pooling_that_no_file_says_can_be_said(tmp_path):
    src, _ = write_file(tmp_path, 'timm.pth')
    done = convert(str(src), tmp_path / 'a.safetensors')
    assert 'global_pool=token, which the file does not say' in done.assumed
    done = convert(str(src), tmp_path / 'b.safetensors', arch=dict(global_pool='avg'))
    assert done.arch['global_pool'] == 'avg' and not any('does not say' in line for line in done.assumed)
    for name in ('mae.pth', 'official.pth', 'ours.safetensors'):  # no head, or known
        src, _ = write_file(tmp_path, name)
        assert not any('global_pool' in line for line in inspect_weights(src).assumed)
