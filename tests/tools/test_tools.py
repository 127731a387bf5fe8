"""The tools as a user runs them: exit codes, lines, files; `fresh` ones in processes that import everything anew."""
import json
import pickle
import resource

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.paths import ROOT
from tests.helpers.tools import fresh, refused, tool
from tests.helpers.toy import e2e_config, incubation_config, write_images

PYTHON_TOOLS = sorted(p.name for p in (ROOT / 'tools').glob('*.py'))


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """Config files of both kinds over the same images, and their work dirs."""
    folder = tmp_path_factory.mktemp('toy')
    write_images(folder / 'images')
    e2e = e2e_config(folder / 'images', folder / 'e2e')
    e2e.merge_from_dict(dict(
        visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]), log_level='INFO'))
    e2e.dump(folder / 'e2e.py')
    incubation_config(folder / 'images', folder / 'incub', start='grow', log_level='INFO').dump(folder / 'incub.py')
    return folder


@pytest.fixture(scope='module')
def trained(toy):
    done = fresh('train.py', toy / 'e2e.py')
    assert done.returncode == 0, done.stderr
    return toy


@pytest.mark.parametrize('name', PYTHON_TOOLS)
def test_help_takes_less_than_a_second_of_cpu(name):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fresh(name, '--help')
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0 and 'usage' in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


def test_wrong_config_path(toy):
    assert 'vit_demo_e2' in refused(fresh('train.py', 'configs/demo/vit_demo_e2.py'))


@pytest.mark.parametrize('option, named', [
    ('train_cfg.max_epoch=3', 'max_epochs'),
    ('optim_wraper.optimizer.lr=1', 'optim_wrapper'),
    ('model.drop_path=0.1', 'drop_path_rate'),
    ('train_dataloader.dataset.root=/nowhere/train', '/nowhere/train'),
    ('load_from=/nowhere/weights.pth', '/nowhere/weights.pth')])
def test_wrong_settings_are_one_line_before_anything_is_built(toy, option, named):
    work_dir = toy / 'refused'
    assert named in refused(tool('train.py', toy / 'e2e.py', '--work-dir', work_dir, '--cfg-options', option))
    assert not work_dir.exists()


@pytest.mark.parametrize('args, named', [
    (['--phase', 'module_9'], 'module_1'),
    (['--cfg-options', 'train_cfg.phases.metta.epochs=1'], 'meta'),
    (['--cfg-options', 'model.modules=3'], '4 blocks do not divide into 3'),
    (['--resume', '/nowhere/epoch_1.pth'], '/nowhere/epoch_1.pth'),
    (['--auto-scale-lr'], 'base_batch_size')])
def test_wrong_arguments_of_an_incubation(toy, args, named):
    assert named in refused(tool('train.py', toy / 'incub.py', '--work-dir', toy / 'refused', *args))
    assert not (toy / 'refused').exists()


def test_train_writes_what_it_promises(trained):
    result = json.loads((trained / 'e2e/result.json').read_text())
    assert result['run'] == 'e2e' and result['metrics'].keys() == {'accuracy/top1'}
    assert load_file(trained / 'e2e/weights/e2e_last.safetensors')
    assert (trained / 'e2e/e2e.py').exists()  # the resolved config


@pytest.mark.parametrize('checkpoint', ['epoch_2.pth', 'weights/e2e_last.safetensors'])
def test_test_reproduces_the_validation(trained, checkpoint):
    command = fresh if checkpoint.endswith('.pth') else tool
    done = command('test.py', trained / 'e2e.py', trained / 'e2e' / checkpoint, '--work-dir', trained / 'tested',
                   '--out', trained / 'out.pkl', '--show-dir', trained / 'shown')
    assert done.returncode == 0, done.stderr
    top1 = json.loads((trained / 'e2e/result.json').read_text())['metrics']['accuracy/top1']
    assert f'accuracy/top1: {top1:.4f}' in done.stdout + done.stderr
    assert '100.0 %' in done.stdout + done.stderr  # the coverage line
    assert len(pickle.loads((trained / 'out.pkl').read_bytes())) == 24
    names = {str(p.relative_to(trained / 'images')) for p in (trained / 'images').rglob('*.png')}
    assert {str(p.relative_to(trained / 'shown')) for p in (trained / 'shown').rglob('*')} - {*'012'} == names


def test_test_refuses_what_does_not_fit(trained):
    option = ['--cfg-options', 'model.arch.depth=3']
    assert 'blocks.3' in refused(tool('test.py', trained / 'e2e.py', trained / 'e2e/epoch_2.pth', *option))
    for option, said in (('num_heads=4', 'num_heads=2'), ('global_pool=avg', 'global_pool=token')):
        done = tool('test.py', trained / 'e2e.py', trained / 'e2e/epoch_2.pth', '--cfg-options', f'model.arch.{option}')
        assert f'made with {said}' in refused(done)
    assert 'tta_model' in refused(tool('test.py', trained / 'e2e.py', trained / 'e2e/epoch_2.pth', '--tta'))
    assert 'nowhere.pth' in refused(tool('test.py', trained / 'e2e.py', 'nowhere.pth'))


def test_resume_by_default_continues_the_newest_checkpoint(trained):
    before = load_file(trained / 'e2e/weights/e2e_last.safetensors')
    done = tool('train.py', trained / 'e2e.py', '--work-dir', trained / 'again', '--cfg-options',
                'train_cfg.max_epochs=1', 'param_scheduler.0.end=2')
    assert done.returncode == 0, done.stderr
    done = tool('train.py', trained / 'e2e.py', '--work-dir', trained / 'again', '--resume', '--allow-changed')
    assert done.returncode == 0 and 'epoch_1.pth' in done.stdout + done.stderr, done.stderr
    after = load_file(trained / 'again/weights/e2e_last.safetensors')
    assert all(torch.equal(before[k], after[k]) for k in before)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('args', [
    ['train.py', '{e2e}', '--resume', '{bad}'],
    ['train.py', '{e2e}', '--work-dir', '{out}', '--cfg-options', 'load_from={bad}'],
    ['test.py', '{e2e}', '{bad}'],
    ['assemble.py', '{bad}', '--out', '{out}']])
def test_a_malicious_pickle_is_refused_and_not_executed(toy, args):
    bad, ran = toy / 'bad.pth', toy / 'executed'
    torch.save(dict(state_dict=Payload(ran)), bad)
    values = dict(e2e=toy / 'e2e.py', bad=bad, out=toy / 'out.safetensors')
    command = fresh if '--resume' in args else tool  # what is imported has no part in it
    done = command(*[a.format(**values) for a in args])
    assert done.returncode == 2 and 'refused' in done.stderr and 'Traceback' not in done.stderr, done.stderr
    assert not ran.exists()


def test_a_config_hidden_in_a_checkpoint_is_not_executed(trained):
    """mmengine runs the config text of the checkpoint it resumes from."""
    from mmincubation.compat.safe_globals import allow_mm_checkpoints
    allow_mm_checkpoints()
    ran = trained / 'config_executed'
    checkpoint = torch.load(trained / 'e2e/epoch_2.pth', weights_only=True)
    checkpoint['meta']['config'] = f'x = open({str(ran)!r}, "w")'
    torch.save(checkpoint, trained / 'hidden.pth')
    done = fresh('train.py', trained / 'e2e.py', '--work-dir', trained / 'hidden', '--resume', trained / 'hidden.pth')
    assert done.returncode == 0, done.stderr  # the guard is the tools', the config need not name it
    assert not ran.exists()


def test_two_cpu_ranks_train_and_test(toy):
    # Two ranks of 3 images see, in every step, the images that one rank of 6 sees.
    half = ['--cfg-options', 'train_dataloader.batch_size=3', 'val_dataloader.batch_size=3']
    done = fresh('dist_train.sh', toy / 'incub.py', 2, '--work-dir', toy / 'dist', *half)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((toy / 'dist/result.json').read_text())
    assert result['devices'] == 2 and [p['name'] for p in result['phases']][-1] == 'finetune'
    assert all(p['images'] in (0, 24) for p in result['phases'])
    weights = toy / 'dist/weights/finetune_last.safetensors'
    one = tool('train.py', toy / 'incub.py', '--work-dir', toy / 'one')
    assert one.returncode == 0, one.stderr
    ours, theirs = load_file(weights), load_file(toy / 'one/weights/finetune_last.safetensors')
    for key in ours:  # sums in another order, hence the tolerance; unsynchronised ranks are 1e-2 away
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=2e-3)
    tested = fresh('dist_test.sh', toy / 'e2e.py', weights, 2, '--work-dir', toy / 'dist_tested')
    assert tested.returncode == 0, tested.stderr[-3000:]
    top1 = result['metrics']['accuracy/top1']
    assert f'accuracy/top1: {top1:.4f}' in tested.stdout + tested.stderr


def test_amp_changes_the_arithmetic_but_not_the_files(trained):
    done = tool('train.py', trained / 'e2e.py', '--work-dir', trained / 'amp', '--amp')
    assert done.returncode == 0, done.stderr
    plain, amp = (load_file(trained / f'{name}/weights/e2e_last.safetensors') for name in ('e2e', 'amp'))
    assert all(v.dtype == torch.float32 for v in amp.values())
    assert any(not torch.equal(plain[k], amp[k]) for k in amp)


def test_incubations_are_tested_as_their_target(toy):
    done = tool('train.py', toy / 'incub.py', '--work-dir', toy / 'whole')
    assert done.returncode == 0, done.stderr
    top1 = json.loads((toy / 'whole/result.json').read_text())['metrics']['accuracy/top1']
    for checkpoint in ('epoch_4.pth', 'weights/finetune_last.safetensors'):
        done = tool('test.py', toy / 'incub.py', toy / 'whole' / checkpoint, '--work-dir', toy / 'whole_tested')
        assert done.returncode == 0 and f'accuracy/top1: {top1:.4f}' in done.stdout + done.stderr, done.stderr
    for args in (['test.py', toy / 'incub.py', toy / 'whole/epoch_1.pth'],
                 ['test.py', toy / 'e2e.py', toy / 'whole/epoch_1.pth'],
                 ['train.py', toy / 'incub.py', '--work-dir', toy / 'w', '--cfg-options',
                  f'load_from={toy}/whole/epoch_1.pth']):
        assert 'an incubation in its phase meta, the target is not assembled yet' in refused(tool(*args))
    done = tool('convert.py', toy / 'whole/epoch_1.pth', toy / 'new.safetensors')
    assert done.returncode == 2 and 'the target is not assembled yet' in done.stderr


@pytest.mark.parametrize('args, named', [
    (['e2e.py', '--cfg-options', 'load_from={e2e}/weights/e2e_last.safetensors'], 'holds a ViT alone'),
    (['e2e.py', '--cfg-options', 'load_from={short}'], 'truncated'),
    (['e2e.py', '--resume', '{short}'], 'truncated'),
    (['incub.py', '--resume', '{e2e}/epoch_2.pth'], 'not the one to be resumed'),
    (['incub.py', '--resume', '{e2e}/epoch_2.pth', '--allow-changed'], 'does not fit the model'),
    (['e2e.py', '--resume', '{e2e}/epoch_2.pth', '--allow-changed', '--cfg-options', 'model.arch.mlp_ratio=2'],
     'mlp.fc1'),
    (['e2e.py', '--cfg-options', 'model.arch.dpeth=3'], 'depth'),
    (['e2e.py', '--cfg-options', 'experiment.task=poetry'], 'classification'),
    (['e2e.py', '--cfg-options', 'word'], 'key=value'),
    (['e2e.py', '--launcher', 'slurm'], 'srun'),
    (['incub.py', '--cfg-options', 'train_cfg.start=ramdom'], 'random'),
    (['incub.py', '--cfg-options', 'train_cfg.recipe=papercode'], 'paper_code'),
    (['incub.py', '--phase', 'finetune'], '--phase NAME')])
def test_what_does_not_belong_is_refused(trained, args, named):
    short = trained / 'short.pth'
    short.write_bytes((trained / 'e2e/epoch_2.pth').read_bytes()[:2000])
    args = [a.format(e2e=trained / 'e2e', short=short) for a in args]
    done = tool('train.py', trained / args[0], '--work-dir', trained / 'refused', *args[1:])
    assert named in refused(done)


def test_a_deleted_newest_checkpoint_is_named(trained):
    folder = trained / 'deleted'
    folder.mkdir(exist_ok=True)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_9.pth'))
    done = tool('train.py', trained / 'e2e.py', '--work-dir', folder, '--resume')
    assert 'epoch_9.pth does not exist' in refused(done)


def test_phases_run_alone_through_the_tool(toy):
    for phase in ('meta', 'module_1', 'module_0', 'finetune'):
        done = tool('train.py', toy / 'incub.py', '--work-dir', toy / 'alone', '--phase', phase)
        assert done.returncode == 0, done.stderr
    result = json.loads((toy / 'alone/result.json').read_text())
    assert [p['name'] for p in result['phases']] == ['meta', 'module_0', 'module_1', 'assembled', 'finetune']
    parts = [toy / f'alone/weights/module_{i}_last.safetensors' for i in (0, 1)]
    done = tool('assemble.py', *parts, '--out', toy / 'joined.safetensors')
    assert done.returncode == 0, done.stderr
    joined, assembled = load_file(toy / 'joined.safetensors'), load_file(toy / 'alone/weights/assembled.safetensors')
    assert joined.keys() == assembled.keys() and all(torch.equal(joined[k], assembled[k]) for k in joined)
