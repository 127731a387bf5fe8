"""What a file is, by its bytes: good ones are read whatever their name, the others are named, with a true remedy."""
import json
import pickle
import sys
import zipfile
from argparse import Namespace
from itertools import accumulate
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from mmincubation.checkpoints import CheckpointError, open_vit, read_tensors, read_vit, sha256_of, write_tensors
from mmincubation.checkpoints.shards import weights_sha256
from mmincubation.models import VisionTransformer
from mmincubation.recovery.checkpoint_files import damage, newest_complete
from tests.helpers.weight_files import equal, hf_names, random_vit

STATE = random_vit().state_dict()
TENSORS = {key: value.contiguous().clone() for key, value in STATE.items()}


def save(content, path, old=False):
    torch.save(content, path, _use_new_zipfile_serialization=not old)


@pytest.mark.parametrize('name', ['a.pth', 'a.ckpt', 'epoch=3-step=12.ckpt', 'a.pth.tar', 'a.model', 'a'])
@pytest.mark.parametrize('old', [True, False])
def test_torchs_files_are_read_by_any_name(tmp_path, name, old):
    save(dict(state_dict=STATE), tmp_path / name, old)
    assert equal(open_vit(tmp_path / name).tensors, STATE) and damage(tmp_path / name) is None


def test_safetensors_are_read_by_any_name(tmp_path):
    from safetensors.torch import save_file
    save_file(TENSORS, tmp_path / 'model.ckpt')
    assert equal(open_vit(tmp_path / 'model.ckpt').tensors, STATE)


@pytest.mark.parametrize('old', [True, False])
@pytest.mark.parametrize('part', [.02, .5, .99])
def test_a_cut_file_is_truncated_for_reading_and_for_resuming(tmp_path, old, part):
    save(dict(state_dict=STATE), whole := tmp_path / 'epoch_1.pth', old)
    cut = tmp_path / 'epoch_2.pth'
    cut.write_bytes(whole.read_bytes()[:int(whole.stat().st_size * part)])
    with pytest.raises(CheckpointError, match='epoch_2.pth:? is truncated'):
        read_tensors(cut)
    assert 'is truncated' in damage(cut)
    found, warnings = newest_complete(tmp_path)
    assert found == whole and f'{cut} is truncated' in warnings[0]


def torchscript(path):
    torch.jit.script(nn.Linear(2, 2)).save(str(path))


def exported(path):
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2), )), str(path))


def zipped(path):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('model/readme.txt', 'x')


@pytest.mark.parametrize('name, write, message', [
    ('a.pt', torchscript, r"is a TorchScript program.*torch.jit.load\('\S+/a.pt', map_location='cpu'\).state_dict\(\)"),
    ('a.pt2', exported, 'is a program of torch.export'),
    ('ViT-B_16.npz', lambda path: np.savez(path, a=np.ones(2)), 'is an archive of NumPy arrays.*timm reads those'),
    ('a.zip', zipped, 'is a zip archive of model/readme.txt, not a file of torch.save'),
    ('a.npy', lambda path: np.save(path, np.ones(2)), 'is a NumPy array'),
    ('a.onnx', lambda path: path.write_bytes(b'\x08\x08\x12\x07pytorch' * 9), 'is an ONNX graph'),
    ('a.h5', lambda path: path.write_bytes(b'\x89HDF\r\n\x1a\n' * 9), 'is an HDF5 file'),
    ('a.pth', lambda path: path.write_bytes(b'\x1f\x8b' * 99), 'is compressed by gzip; unpack it'),
    ('a.pkl', lambda path: path.write_bytes(pickle.dumps({'a': [1.]})), 'is a pickle that torch.save did not write'),
    ('whole.pth', lambda path: torch.save(nn.Linear(2, 2), path), 'asks for torch.nn.*save the state dict alone'),
    ('a.safetensors', lambda path: save(STATE, path), 'is no safetensors file but one of torch.save.*rename it'),
    ('old.safetensors', lambda path: save(STATE, path, old=True), 'is no safetensors file but one of torch.save'),
    ('four.pth', lambda path: torch.save(STATE, path, pickle_protocol=4), 'pickle protocol that cannot be read'),
    ('config.json', lambda path: path.write_text('{"hidden_size": 48}'), 'is no index of shards'),
])
def test_other_files_are_named_and_never_called_damaged(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(CheckpointError, match=message) as error:
        read_tensors(tmp_path / name)
    assert 'damaged' not in str(error.value) and 'Download' not in str(error.value) and '\n' not in str(error.value)


# --- shards and folders

def write_shards(folder, index='model.safetensors.index.json', count=3):
    from safetensors.torch import save_file
    folder.mkdir(exist_ok=True)
    names = {key: value.contiguous().clone() for key, value in hf_names(STATE).items()}
    suffix = 'safetensors' if 'safetensors' in index else 'bin'
    files = [f'model-{i + 1:05}-of-{count:05}.{suffix}' for i in range(count)]
    places = {key: files[i % count] for i, key in enumerate(names)}
    for file in files:
        part = {key: names[key] for key, place in places.items() if place == file}
        save_file(part, folder / file) if suffix == 'safetensors' else torch.save(part, folder / file)
    (folder / index).write_text(json.dumps(dict(metadata={}, weight_map=places)))
    return folder / index, [folder / file for file in files]


@pytest.mark.parametrize('index', ['model.safetensors.index.json', 'pytorch_model.bin.index.json'])
def test_shards_are_read_by_their_index_or_folder(tmp_path, index):
    path, files = write_shards(tmp_path / 'vit', index)
    for source in (path, path.parent):
        assert equal(open_vit(source).tensors, STATE)
    before = weights_sha256(path)
    assert before == weights_sha256(path.parent) != sha256_of(path)
    files[1].write_bytes(files[0].read_bytes())
    assert weights_sha256(path) != before  # though the index is the same
    with pytest.raises(CheckpointError, match=r'model-00002-of-00003\.\w+: has no vit\S+, which \S+ says it has'):
        open_vit(path)
    with pytest.raises(CheckpointError, match=r'00001-of-00003\.\w+ is shard 1 of 3 of a model; give the index'):
        open_vit(files[0])
    files[2].unlink()
    with pytest.raises(CheckpointError, match='1 of its 3 shards are missing .model-00003-of-00003'):
        open_vit(path.parent)


def test_one_shard_of_one_is_a_file(tmp_path):
    path, (file, ) = write_shards(tmp_path / 'vit', count=1)
    assert equal(open_vit(file).tensors, STATE) and equal(open_vit(path).tensors, STATE)


@pytest.mark.parametrize('name', ['../a.bin', '/etc/passwd', 'b/a.bin', '', '..', 3])
def test_shards_lie_beside_their_index(tmp_path, name):
    (tmp_path / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=dict(a=name))))
    with pytest.raises(CheckpointError, match='index.json: its shard .* is no file name'):
        read_tensors(tmp_path)


def test_folders(tmp_path):
    with pytest.raises(CheckpointError, match='is a folder with 0 weight files .none of model.safetensors'):
        read_tensors(tmp_path)
    save(STATE, tmp_path / 'net.pth')
    assert equal(open_vit(tmp_path).tensors, STATE)
    save(STATE, tmp_path / 'other.ckpt')
    with pytest.raises(CheckpointError, match='is a folder with 2 weight files .net.pth, other.ckpt.; give the path'):
        read_tensors(tmp_path)
    save({key: value + 1 for key, value in STATE.items()}, tmp_path / 'pytorch_model.bin')
    assert open_vit(tmp_path).tensors['norm.bias'].equal(STATE['norm.bias'] + 1)


def test_a_distributed_checkpoint_is_named(tmp_path):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    dcp.save(dict(model=dict(STATE)), checkpoint_id=str(tmp_path / 'dcp'))
    with pytest.raises(CheckpointError, match='distributed checkpoint of torch.*format_utils dcp_to_torch'):
        read_tensors(tmp_path / 'dcp')
    dcp_to_torch_save(str(tmp_path / 'dcp'), str(tmp_path / 'new.pth'))  # what the message says
    assert equal(open_vit(tmp_path / 'new.pth').tensors, STATE)


def test_settings_beside_the_weights_are_read_as_data(tmp_path, monkeypatch):
    """CfgNode (Swin, detectron2), AttributeDict (Lightning), paths in the arguments of scripts."""
    settings = dict(lr=.1, data=PurePosixPath('/data/imagenet'))
    for name in ('yacs.config.CfgNode', 'lightning_fabric.utilities.data.AttributeDict', 'easydict.EasyDict'):
        module, _, kind = name.rpartition('.')
        cls = type(kind, (dict, ), dict(__module__=module))
        for part in accumulate(module.split('.'), lambda a, b: f'{a}.{b}'):
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
        setattr(sys.modules[module], kind, cls)
        node = cls(settings)
        node.__dict__['__immutable__'] = True
        save(dict(state_dict=STATE, config=node, args=Namespace(output=Path('out'))), tmp_path / 'a.pth')
        content, _ = read_tensors(tmp_path / 'a.pth')
        assert dict(content['config']) == dict(lr=.1, data='/data/imagenet') and content['args'].output == 'out'
        assert equal(open_vit(tmp_path / 'a.pth').tensors, STATE)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_weights_that_are_not_finite(tmp_path, value):
    tensors = VisionTransformer(dict(embed_dim=16, depth=2, num_heads=2, patch_size=4, img_size=8)).state_dict()
    tensors['blocks.1.mlp.fc1.bias'][3] = value
    write_tensors(tmp_path / 'vit.safetensors', tensors, {})
    with pytest.raises(CheckpointError, match=r'vit.safetensors: blocks.1.mlp.fc1.bias has values that are not finite'):
        read_vit(tmp_path / 'vit.safetensors')


@pytest.mark.parametrize('size', [0x180, 0x280, 0x580, 0x1080])
def test_a_safetensors_header_whose_size_begins_as_a_pickle(tmp_path, size):
    head = json.dumps(dict(a=dict(dtype='F32', shape=[1], data_offsets=[0, 4]))).encode().ljust(size)
    (tmp_path / 'a.safetensors').write_bytes(size.to_bytes(8, 'little') + head + b'\0\0\x80?')
    assert read_tensors(tmp_path / 'a.safetensors')[0]['a'] == 1


def test_arrays_of_numpy_are_weights_too(tmp_path):
    torch.save({key: value.numpy() for key, value in STATE.items()}, tmp_path / 'a.pth')
    assert equal(open_vit(tmp_path / 'a.pth').tensors, STATE)


def test_quantised_weights_are_named(tmp_path):
    torch.save({key: (50 * value).round().to(torch.int8) for key, value in STATE.items()}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='holds torch.int8, quantised weights; give those in floating point'):
        open_vit(tmp_path / 'a.pth')
    torch.save({key: value.to(torch.float8_e4m3fn) for key, value in STATE.items()}, tmp_path / 'b.pth')
    assert len(open_vit(tmp_path / 'b.pth').tensors) == len(STATE)
