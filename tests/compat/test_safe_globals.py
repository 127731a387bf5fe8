"""A Runner's own checkpoint passes the allow-list; a malicious or forged file does not, and nothing of it runs."""
import argparse
import copyreg
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmincubation.compat.safe_globals import allow_mm_checkpoints


@pytest.fixture(autouse=True)
def allowed():
    torch.serialization.clear_safe_globals()
    allow_mm_checkpoints()
    yield
    torch.serialization.clear_safe_globals()


class Toy(BaseModel):

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.layer(torch.stack(inputs))
        return {'loss': out.square().mean()} if mode == 'loss' else [out]


class Score(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'score': np.float64(len(results))}


class Extras(Hook):
    """What resuming hooks keep in a checkpoint: numpy arrays and scalars."""

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['rng'] = np.random.RandomState(0).get_state()
        checkpoint['numbers'] = [np.int64(3), np.float32(.5), np.bool_(True), np.arange(4, dtype='>i4')]


def make_runner(folder, epochs, **kwargs):
    loader = dict(dataset=[{'inputs': torch.tensor([i, 1.])} for i in range(4)], batch_size=2,
                  sampler=dict(type='DefaultSampler', shuffle=True))
    return Runner(
        Toy(), str(folder), train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)), val_cfg=dict(),
        val_evaluator=[Score()], optim_wrapper=dict(optimizer=dict(type='AdamW', lr=.1)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]), custom_hooks=[Extras()],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='score', rule='greater'),
                           logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmengine', log_level='ERROR', randomness=dict(seed=0), experiment_name=folder.name, **kwargs)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    make_runner(folder, 1).train()
    return folder / 'epoch_1.pth'


def test_a_runner_checkpoint_needs_the_list_and_passes_it(trained):
    torch.serialization.clear_safe_globals()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(trained)
    allow_mm_checkpoints()
    loaded, trusted = torch.load(trained), torch.load(trained, weights_only=False)
    buffers, wanted = loaded['message_hub']['log_scalars'], trusted['message_hub']['log_scalars']
    assert buffers.keys() == wanted.keys() and 'train/loss' in buffers
    for name, buffer in buffers.items():
        assert type(buffer) is HistoryBuffer and type(buffer.data[0]) is np.ndarray
        assert all(np.array_equal(a, b) for a, b in zip(buffer.data, wanted[name].data, strict=True))
        assert buffer.max_length == wanted[name].max_length
        assert type(buffer.mean(1)) is np.float64 and buffer.statistics('mean') == wanted[name].mean()
    assert loaded['meta'] == trusted['meta']
    assert loaded['message_hub']['runtime_info']['best_score'] == 2


def test_numpy_numbers_keep_value_and_type_in_either_byte_order(trained):
    loaded, trusted = torch.load(trained), torch.load(trained, weights_only=False)
    *scalars, array = loaded['numbers']
    assert [(type(a), a) for a in scalars] == [(type(a), a) for a in trusted['numbers'][:3]]
    assert np.array_equal(array, trusted['numbers'][3]) and array.dtype == trusted['numbers'][3].dtype
    assert np.array_equal(loaded['rng'][1], trusted['rng'][1]) and loaded['rng'][1].dtype == np.uint32
    np.random.RandomState(1).set_state(loaded['rng'])


def test_what_was_loaded_is_saved_again_without_our_names(trained, tmp_path):
    torch.save(torch.load(trained), tmp_path / 'again.pth')
    torch.serialization.clear_safe_globals()
    assert not [n for n in torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / 'again.pth') if 'incub' in n]
    assert pickle.loads(pickle.dumps(np.arange(3))).tolist() == [0, 1, 2]


def test_a_runner_resumes(trained, tmp_path):
    runner = make_runner(tmp_path, 2, load_from=str(trained), resume=True)
    runner.train()
    assert runner.iter == 4 and len(runner.message_hub.get_scalar('train/loss').data[0]) == 4


def test_numpy_1_names_and_namespace(tmp_path):
    scalar, array = np.float64(2.5), np.arange(3.)
    torch.save({'args': argparse.Namespace(lr=.1, model='deit'), 'array': array, 'scalar': scalar}, tmp_path / 'a.pth')
    renamed = rewrite(tmp_path / 'a.pth', tmp_path / 'b.pth', b'numpy._core.multiarray', b'numpy.core.multiarray')
    for file in (tmp_path / 'a.pth', renamed):
        loaded = torch.load(file)
        assert loaded['args'].lr == .1 and loaded['scalar'] == 2.5 and loaded['array'].tolist() == [0, 1, 2]


def rewrite(source, target, old, new):
    """A copy of the checkpoint whose pickle has `old` replaced by `new`."""
    import zipfile
    found = 0
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, 'w') as after:
        for item in before.infolist():
            found += before.read(item).count(old)
            after.writestr(item.filename, before.read(item).replace(old, new))
    assert found, f'{old!r} is not in {source}'
    return target


class Call:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('legacy', [False, True])
def test_a_malicious_file_is_refused_and_not_executed(tmp_path, legacy):
    flag, file = tmp_path / 'executed', tmp_path / 'evil.pth'
    evil = [Call(os.system, f'touch {flag}'), Call(eval, f'open({str(flag)!r}, "w")'), Call(open, str(flag), 'w'),
            Call(getattr, Call(__import__, 'os'), 'system'), Call(getattr, HistoryBuffer, '__init__'),
            Call(getattr, HistoryBuffer, 'register_statistics'), Call(getattr, np.dtype, 'min'),
            Call(copyreg._reconstructor, HistoryBuffer, object, None)]
    for payload in evil:
        payload = argparse.Namespace(model={'w': torch.ones(1)}, extra=payload)
        torch.save(payload, file, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(pickle.UnpicklingError), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.load(file)
        assert not flag.exists()


def test_the_flag_file_test_can_fail(tmp_path):
    torch.save(Call(os.system, f'touch {tmp_path / "executed"}'), tmp_path / 'evil.pth')
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert (tmp_path / 'executed').exists()


FORGED = {
    'objects': lambda: np.array([None, 'x'], dtype=object),
    'records': lambda: np.zeros(2, dtype=[('a', 'O')]),
    'text': lambda: np.array(['x']),
    'dtype code': lambda: Call(np.dtype, 'O8', False, True),
    'byte order': lambda: Call(np.dtype, 'f8', False, True, state=(3, 'O', None, None, None, -1, -1, 0)),
}


@pytest.mark.parametrize('name', FORGED)
def test_numpy_data_that_are_not_numbers_are_refused(tmp_path, name):
    torch.save({'x': FORGED[name]()}, tmp_path / 'x.pth')
    with pytest.raises(pickle.UnpicklingError, match='numpy'):
        torch.load(tmp_path / 'x.pth')


def test_forged_dtype_flags_are_ignored(tmp_path):
    forged = Call(np.dtype, 'f8', False, True, state=(3, '<', None, None, None, -1, -1, 63))
    empty, data = np._core.multiarray._reconstruct, np.full(3, 1e-300).tobytes()
    torch.save(Call(empty, np.ndarray, (0,), b'b', state=(1, (3,), forged, False, data)), tmp_path / 'x.pth')
    array = torch.load(tmp_path / 'x.pth')
    assert array.dtype == np.float64 and not array.dtype.hasobject and array.tolist() == [1e-300] * 3


def test_memory_under_a_tensor_cannot_be_rebuilt():
    from mmincubation.compat.safe_globals import _Array, _Dtype
    array, dtype = _Array(), _Dtype('f8')
    array.__setstate__((1, (2,), dtype, False, np.ones(2).tobytes()))
    with pytest.raises(pickle.UnpicklingError, match='built twice'):
        array.__setstate__((1, (1,), dtype, False, np.ones(1).tobytes()))
    with pytest.raises(ValueError):
        _Array().__setstate__((1, (3,), dtype, False, b'short'))
    with pytest.raises(TypeError):
        _Array((2,), 'f8', array)


def test_damaged_files_raise_in_one_piece(trained, tmp_path):
    (tmp_path / 'half.pth').write_bytes(trained.read_bytes()[:200])
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        torch.load(tmp_path / 'half.pth')


def test_it_needs_no_import_order(trained):
    code = ('import torch; from mmincubation.compat.safe_globals import allow_mm_checkpoints as allow; '
            f'allow(); allow(); print(sorted(torch.load({str(trained)!r}))[0])')
    done = subprocess.run([sys.executable, '-W', 'error::FutureWarning', '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == 'message_hub', done.stderr
