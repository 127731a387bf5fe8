"""A model card says what its result says, is read by the hub's own library, and overwrites nothing of others."""
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from mmincubation.leaderboard.card import CardError, make_files, slug, untouched, write_files
from mmincubation.result import read_result, write_result
from tests.helpers.paths import ROOT
from tests.helpers.results import phase, put
from tools.card import main

OUTPUTS = [dict(path='weights/meta_last.safetensors', sha256='1' * 64),
           dict(path='weights/finetune_last.safetensors', sha256='2' * 64)]
NASTY = '---\n<script>`| [x](javascript:1) $&;\x1b[31m "\' #'


@pytest.fixture(name='run')
def fixture_run(tmp_path):
    phases = [phase('meta', 1000, 60., 4), phase('module_0', 500, 61., 7), phase('finetune', 500, 71.25)]
    recipe = {'batch': '64', 'optim_wrapper.optimizer.lr': '0.001', 'optim_wrapper.optimizer.type': '"AdamW"',
              'model.arch.name': '"vit_base"', 'model.arch.depth': '4', 'model.arch.x)': '1'}
    return put(tmp_path / 'runs', 'incub', 71.25, phases=phases, recipe=recipe, outputs=OUTPUTS)


def test_the_card_says_what_the_result_says(run):
    text = make_files(run.parent)['README.md']
    assert make_files(run) == make_files(run.parent)
    for said in ('| top-1 | 71.2 | 1 |', 'One seed (0)', '- train: ImageFolder data/demo/train, 100 images',
                 '- images per step: 64', '- learning rate: 0.001',
                 '- optimiser: AdamW', '| meta | 1 | 1,000 | 10 | top-1 60.0 |',
                 f'| weights/meta_last.safetensors | {"1" * 64} |',
                 'python tools/test.py configs/demo/vit_demo_incub.py weights/finetune_last.safetensors',
                 "arch=dict(name='vit_base', depth=4)", "checkpoint='weights/finetune_last.safetensors'",
                 f'- commit: {"b" * 40}',
                 '- machine: 1 x a CPU', '- versions: torch 2.0', 'Deep Incubation'):
        assert said in text, said


def test_the_hub_reads_the_card(run):
    card = ModelCard(make_files(run, 'org/digits', 'test')['README.md'])
    result, = card.data.eval_results
    assert (result.task_type, result.dataset_type, result.dataset_name) == (
        'image-classification', 'org/digits', 'digits')
    assert (result.metric_type, result.metric_value) == ('accuracy', 71.25)
    assert card.data.library_name == 'mmincubation' and card.data.pipeline_tag == 'image-classification'
    assert card.data.tags == ['mmincubation', 'vit', 'deep-incubation'] and card.text.lstrip().startswith('# vit')


@pytest.mark.parametrize('task, value, titles', [
    ('detection', 0.431, {'box AP': 43.1, 'mask AP': 38.1}), ('segmentation', 40.0, {'mIoU': 40.0, 'aAcc': 70.0})])
def test_dense_tasks(tmp_path, task, value, titles):
    files = make_files(put(tmp_path, 'e2e', value, task), 'org/data', 'val')
    card = ModelCard(files['README.md'])
    assert {re.sub(r' \(.*', '', each.metric_name): each.metric_value for each in card.data.eval_results} == titles
    assert 'CHECKPOINT' in files['README.md'] and 'deep-incubation' not in card.data.tags
    entry, = parse_eval_result_entries(yaml.safe_load(files['.eval_results/digits.yaml']))
    assert entry.value == next(iter(titles.values()))


def test_eval_results_are_as_the_hub_has_them(run):
    files = make_files(run, 'org/digits', 'test')
    content = yaml.safe_load(files['.eval_results/digits.yaml'])
    assert list(files) == ['README.md', '.eval_results/digits.yaml']
    assert content == [dict(dataset=dict(id='org/digits', task_id='test'), value=71.25,
                            date='2030-01-01T00:00:00+00:00', notes=content[0]['notes'])]
    assert content[0]['notes'].startswith('top-1 in percent, one seed; method incub, recipe ')
    entry, = parse_eval_result_entries(content)
    assert (entry.dataset_id, entry.task_id) == ('org/digits', 'test')


@pytest.mark.parametrize('ids', [('org/x', None), (None, 't'), ('a/b/c', 't'), ('org/x', 'a b'), ('../x y', 't')])
def test_ids_that_are_none(run, ids):
    with pytest.raises(CardError, match=r'--(dataset|task)-id .*: give the id of the benchmark'):
        make_files(run, *ids)


def test_what_was_not_measured_is_not_in_the_index(tmp_path):
    run = put(tmp_path, 'e2e', 0.4, 'detection', metrics={'coco/bbox_mAP': None, 'coco/segm_mAP': -1.0})
    text = make_files(run)['README.md']
    assert ModelCard(text).data.eval_results is None and '| box AP | not measured | 1 |' in text
    with pytest.raises(CardError, match='box AP was not measured'):
        make_files(run, 'org/x', 't')


def test_text_of_strangers_stays_text(tmp_path):
    run = put(tmp_path, 'e2e', 70., outputs=[dict(path=f'{NASTY[3:9]}$(x)/e2e_last.safetensors', sha256='1' * 64)])
    result = read_result(run)
    result.update(hardware=NASTY, config=NASTY, run=NASTY, versions={NASTY: NASTY}, recipe={'batch': NASTY},
                  experiment=dict(task='classification', model=NASTY, method=NASTY, data=NASTY, note=NASTY))
    result['data']['train'] = NASTY
    write_result(run, result)
    files = make_files(run, 'org/x', 't')
    text = files['README.md']
    card = ModelCard(text)
    assert card.data.eval_results[0].dataset_name.startswith('---?<script>') and text.count('\n---\n') == 1
    body = re.sub(r'```.*?```', '', card.text.partition('<!--')[0], flags=re.S)
    assert not re.search(r'(?<!\\)[<$]|(?<!\\)\[x', re.sub(r'`[^`\n]*`', '', body)) and '\x1b' not in text
    assert all(len(line.split(' | ')) in (1, 2, 3, 5) for line in body.splitlines() if line.startswith('|'))
    command = shlex.split(re.search('```\n(.*?)```', text, re.S)[1].split('\n')[0], comments=True)
    assert command[:2] == ['python', 'tools/test.py'] and len(command) == 4 and '$(x)' in command[3]
    assert list(files)[1] == '.eval_results/script-x-javascript-1-31m.yaml'


def test_nothing_of_others_is_overwritten(run, tmp_path):
    files, out = make_files(run, 'org/digits', 'test'), tmp_path / 'out'
    written = write_files(files, out)
    assert written == write_files(files, out) and all(untouched(path.read_text()) for path in written)
    written[1].write_text('mine\n')
    written[0].unlink()
    with pytest.raises(CardError, match='digits.yaml was written or changed by somebody else; move it away'):
        write_files(files, out)
    assert not written[0].exists()  # all or none
    written[1].unlink()
    write_files(files, out)
    written[0].write_text(written[0].read_text().replace('71.2', '91.2'))
    with pytest.raises(CardError, match='README.md was written or changed'):
        write_files(files, out)
    written[0].write_bytes(b'\xff')
    with pytest.raises(CardError, match='README.md'):
        write_files(files, out)


def test_the_tool(run, tmp_path, capsys):
    assert main([str(run.parent)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(run.parent / 'README.md'), 'no .eval_results: that file needs a benchmark of the '
                                'hub, --dataset-id ORG/NAME --task-id NAME'] and not err
    assert main([str(run), '--dataset-id', 'o/x', '--task-id', 't', '--out', str(tmp_path / 'o')]) == 0
    assert (tmp_path / 'o' / '.eval_results' / 'digits.yaml').exists()
    capsys.readouterr()
    for arguments in ([tmp_path / 'none'], [tmp_path], [run, '--task-id', 't'], [run, '--out', run]):
        assert main(list(map(str, arguments))) == 2
        assert re.fullmatch('card.py: error: .*\n', capsys.readouterr().err)


def test_the_tool_from_another_folder(run, tmp_path):
    command = [sys.executable, ROOT / 'tools' / 'card.py', run]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slug():
    assert slug('ImageNet-1K, 50 %') == 'imagenet-1k-50' and slug('../模') == 'data'
