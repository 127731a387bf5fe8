"""tools/compare.py: right numbers and intervals of two checkpoints on one set, or one line that says why not."""
import copy
import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from mmincubation.leaderboard import compare, per_image
from mmincubation.leaderboard.bootstrap import drawn_precisions, draws_of
from mmincubation.leaderboard.compare import compare_files, evaluated
from mmincubation.leaderboard.compare_text import most_different, to_text
from mmincubation.result import ResultError
from tests.helpers.paths import ROOT
from tests.helpers.per_image import add, detection, segmentation, write

MADE = dict(detection=detection, segmentation=segmentation)
MAIN = dict(detection='box mAP', segmentation='mIoU')


def compared(folder, a: dict, b: dict) -> dict:
    return compare_files(write(folder / 'a.json.gz', a), write(folder / 'b.json.gz', b))


def line(found: dict, name: str) -> dict:
    return next(entry for entry in found['metrics'] if entry['name'] == name)


@pytest.mark.parametrize('task', MADE)
def test_a_better_checkpoint_is_better_and_the_other_way_round(task, tmp_path):
    a, b = MADE[task](0.5), MADE[task](0.9)
    found, turned = compared(tmp_path, a, b), compared(tmp_path, b, a)
    there, back = line(found, MAIN[task]), line(turned, MAIN[task])
    assert 0 < there['low'] < there['difference'] < there['high'] and there['supported']
    assert [-back[key] for key in ('high', 'difference', 'low')] == pytest.approx(
        [there[key] for key in ('low', 'difference', 'high')])
    text = to_text(found, 'a', 'b')
    assert 'B is better' in text and 'A is better' not in text and found == compared(tmp_path, a, b)


@pytest.mark.parametrize('task', MADE)
def test_equal_results_differ_by_nothing(task, tmp_path):
    found = compared(tmp_path, MADE[task](0.7), MADE[task](0.7))
    assert {entry[key] for entry in found['metrics'] for key in ('difference', 'low', 'high')} - {None} == {0}
    assert not any(entry['supported'] for entry in found['metrics'])
    assert found['notes'] == ['A and B have the same results for every image']
    assert 'no difference shown' in to_text(found, 'a', 'a')


@pytest.mark.parametrize('task', MADE)
def test_the_interval_has_the_true_difference_in_about_19_of_20_sets(task, tmp_path, monkeypatch):
    """Two detectors of one quality: 0 is the true difference. 40 sets: more than 6 misses are rarer than 1 in 100."""
    monkeypatch.setattr(compare, 'DRAWS', 200)
    misses = sum(line(compared(tmp_path, MADE[task](0.7, seed=2 * i), MADE[task](0.7, seed=2 * i + 1)),
                      MAIN[task])['supported'] for i in range(40))
    assert misses <= 6


def taken(content: dict, images: list[int]) -> dict:
    """The content of these images, as often as they are named."""
    made = copy.deepcopy(content)
    made['images'] = [content['images'][i] for i in images]
    for columns in (made['truth'], *made['results'].values()):
        rows = [(new, k) for new, old in enumerate(images) for k, i in enumerate(columns['image']) if i == old]
        columns.update({key: [new if key == 'image' else values[k] for new, k in rows]
                        for key, values in copy.deepcopy(columns).items()})
    return made


@pytest.mark.parametrize('options', [dict(), dict(junk=150), dict(junk=150, max_dets=(1, 10, 120))], ids=str)
def test_draws_count_images_as_often_as_they_were_drawn(options):
    """The same numbers as hotcoco's of a set in which the images really are that often."""
    import hotcoco
    content = detection(0.6, images=12, **options)
    counts = draws_of(12, 5, seed=3)
    drawn = drawn_precisions(evaluated(content, 'bbox'), counts)
    for i, row in enumerate(counts):
        again = evaluated(taken(content, np.repeat(range(12), row).tolist()), 'bbox')
        theirs = hotcoco.compare(again, again)['metrics_a']
        for key, values in drawn.items():
            assert values[i] == pytest.approx(theirs[key], abs=1e-12) or theirs[key] == -1 and np.isnan(values[i]), key
    assert counts[0].tolist() == [1] * 12 and (counts.sum(1) == 12).all() and counts[1:].max() > 1


def test_hotcocos_own_intervals_are_too_narrow():
    """Why there is a bootstrap here: hotcoco counts an image that was drawn twice once. If this fails, use its own."""
    import hotcoco
    ours, theirs = (evaluated(detection(finds), 'bbox') for finds in (0.6, 0.7))
    stated = hotcoco.compare(ours, theirs, n_bootstrap=1000)['ci']['AP']['std_err']
    a, b = (drawn_precisions(evaluator, draws_of(40, 1000, 0))['AP'] for evaluator in (ours, theirs))
    assert 0.65 < stated / np.std(b - a) < 0.88


def test_the_numbers_of_a_segmentation_are_sums_over_images(tmp_path):
    a, b = segmentation(0.6), segmentation(0.8)
    found = compared(tmp_path, a, b)

    def mean(content: dict, images) -> float:
        areas = {}
        for i in images:
            for label, *row in content['areas'][i]:
                areas[label] = areas.get(label, 0) + np.array(row)
        return 100 * np.mean([inside / (predicted + truth - inside) for inside, predicted, truth in areas.values()])

    entry, every = line(found, 'mIoU'), range(40)
    assert (entry['a'], entry['b']) == pytest.approx((mean(a, every), mean(b, every)))
    rng = np.random.default_rng(1)
    drawn = [mean(b, images) - mean(a, images) for images in rng.integers(0, 40, (1000, 40))]
    assert (entry['low'], entry['high']) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), rel=0.1)


def test_masks_and_boxes_are_compared_apart(tmp_path):
    from hotcoco import mask
    a, b = detection(0.5), detection(0.9)
    for content in (a, b):
        content['results']['segm'] = copy.deepcopy(content['results']['bbox'])
        for columns in (content['truth'], content['results']['segm']):
            columns['mask'] = [mask.fr_bbox(box, 200, 200)['counts'].decode() for box in columns['bbox']]
    halves = b['results']['segm']
    halves['mask'] = [mask.fr_bbox([x, y, w, h / 2], 200, 200)['counts'].decode() for x, y, w, h in halves['bbox']]
    found = compared(tmp_path, a, b)
    assert [entry['name'] for entry in found['metrics']][::6] == ['box mAP', 'mask mAP']
    assert line(found, 'box mAP')['b'] > 30 and line(found, 'mask mAP')['b'] < 5 < 15 < line(found, 'mask mAP')['a']
    assert len(found['tables']) == 4 and [e['name'] for e in found['tables']['mask AP by class']] == ['cat', 'dog']
    del b['results']['segm'], b['truth']['mask']
    found = compared(tmp_path, a, b)
    assert found['notes'] == ['only one of the two has mask results'] and len(found['metrics']) == 6


def test_few_images_are_said(tmp_path):
    [note] = compared(tmp_path, detection(0.5, images=8), detection(0.9, images=8))['notes']
    assert note.startswith('only 8 images')
    found = compared(tmp_path, segmentation(0.5, images=1), segmentation(0.9, images=1))
    assert line(found, 'mIoU')['low'] is None and not line(found, 'mIoU')['supported']
    assert 'too few images' in to_text(found, 'a', 'b')


def test_one_object_gives_no_verdict(tmp_path):
    a, b = (detection(finds, images=60) for finds in (0.9, 0.9))
    for content in (a, b):  # the one large object is in the first image
        truth = content['truth']
        truth['iscrowd'][0] = 0
        truth['area'][0], truth['area'][1:] = 200**2, [20**2] * (len(truth['area']) - 1)
    found = compared(tmp_path, a, b)
    assert line(found, 'box mAP_l')['low'] is None and line(found, 'box mAP')['low'] is not None


def test_what_was_not_measured_is_a_dash(tmp_path):
    a, b = (dict(detection(finds), iou_thrs=[0.5]) for finds in (0.5, 0.9))
    found = compared(tmp_path, a, b)
    entry = line(found, 'box mAP_75')
    assert [entry[key] for key in ('a', 'b', 'difference', 'low', 'high', 'supported')] == [None] * 5 + [False]
    assert 'not measured' in to_text(found, 'a', 'b') and line(found, 'box mAP_l')['a'] is None


def test_the_classes_that_differ_most_are_shown():
    table = [dict(name=str(i), difference=i - 7) for i in range(20)] + [dict(name='x', difference=None)]
    assert [entry['difference'] for entry in most_different(table)] == [12, 11, 10, 9, 8, -3, -4, -5, -6, -7]


OTHERS = {
    'task': (lambda b: segmentation(0.5), 'A is of detection, B of segmentation'),
    'fewer': (lambda b: detection(0.5, images=30), '40 images in A, 30 in B'),
    'image': (lambda b: b['images'][2].__setitem__(0, 'x\x1b.jpg'), 'the images differ: number 3 is'),
    'class': (lambda b: b['classes'].__setitem__(1, 'owl'), "the classes differ: number 2 is 'dog' in A, 'owl' in B"),
    'boxes': (lambda b: b['truth']['bbox'][0].__setitem__(0, 1.), 'the truth differs: bbox of its objects'),
    'objects': (lambda b: add(b['truth'], 0, 0, [1, 1, 9, 9], iscrowd=0), 'the truth differs: '),
    'settings': (lambda b: b.update(max_dets=[1, 10, 100]), 'other settings: max_dets is '),
    'kinds': (lambda b: [b.update(results=dict(segm=dict(b['results']['bbox'], mask=['0'] * len(
        b['results']['bbox']['image'])))), b['truth'].update(mask=['0'] * len(b['truth']['image']))], 'A has bbox, B')}


@pytest.mark.parametrize('how', OTHERS)
def test_other_images_classes_or_truths_are_refused(how, tmp_path):
    change, words = OTHERS[how]
    b = detection(0.5)
    made = change(b)
    with pytest.raises(ResultError, match='cannot be compared') as raised:
        compared(tmp_path, detection(0.5), made if isinstance(made, dict) else b)
    assert words in str(raised.value) and '\n' not in str(raised.value) and '\x1b' not in str(raised.value)


def test_other_areas_of_the_truth_are_refused(tmp_path):
    b = segmentation(0.5)
    b['areas'][3][0][3] += 1
    with pytest.raises(ResultError, match="the truth differs: its classes have other areas in '3.png'"):
        compared(tmp_path, segmentation(0.5), b)


FAULTS = {
    'format': ('detection', lambda c: c.update(format='x'), 'no file of results'),
    'version': ('detection', lambda c: c.update(version=2), 'version 2, this version'),
    'task': ('detection', lambda c: c.update(task=[]), 'task'),
    'key': ('detection', lambda c: c.update(x=1), 'missing or unknown'),
    'no images': ('detection', lambda c: c.update(images=[]), '`images` is no list'),
    'image': ('detection', lambda c: c['images'][0].__setitem__(1, 10**9), 'no proper size'),
    'label': ('detection', lambda c: c['truth']['label'].__setitem__(0, 2), '`truth.label` has no index'),
    'negative': ('detection', lambda c: c['results']['bbox']['image'].__setitem__(0, -1), 'has no index'),
    'bool': ('detection', lambda c: c['results']['bbox']['image'].__setitem__(0, True), 'has no index'),
    'text': ('detection', lambda c: c['results']['bbox']['score'].__setitem__(0, '1'), 'something else than numbers'),
    'nan': ('detection', lambda c: c['results']['bbox']['score'].__setitem__(0, float('nan')), 'something else than'),
    'box': ('detection', lambda c: c['truth']['bbox'].__setitem__(0, [1, 2]), 'is not of 4'),
    'lengths': ('detection', lambda c: c['truth']['area'].pop(), 'different lengths'),
    'masks': ('detection', lambda c: c['results'].update(segm=c['results']['bbox']), '`truth` has not the columns'),
    'kind': ('detection', lambda c: c['results'].update(keypoints={}), '`results` are not'),
    'caps': ('detection', lambda c: c.update(max_dets=[0.5]), '`max_dets`'),
    'areas': ('segmentation', lambda c: c['areas'].pop(), '`areas` has not a list for each image'),
    'row': ('segmentation', lambda c: c['areas'][0].__setitem__(0, [0, 1, 2]), 'not of 4'),
    'class': ('segmentation', lambda c: c['areas'][0][0].__setitem__(0, 3), '`areas` has no index'),
    'twice': ('segmentation', lambda c: c['areas'][0].append(c['areas'][0][0]), 'a class twice'),
    'more': ('segmentation', lambda c: c['areas'][0][0].__setitem__(1, 10**6), 'an intersection larger'),
    'null': ('segmentation', lambda c: c['areas'][0][0].__setitem__(1, None), 'an intersection larger')}


@pytest.mark.parametrize('how', FAULTS)
def test_a_faulty_file_is_refused_in_one_line(how, tmp_path):
    task, change, words = FAULTS[how]
    content = MADE[task](0.5, images=4)
    change(content)
    with pytest.raises(ResultError) as raised:
        per_image.read_per_image(write(tmp_path / 'x.json.gz', content))
    assert words in str(raised.value) and '\n' not in str(raised.value) and 'x.json.gz: ' in str(raised.value)


@pytest.mark.parametrize('data', [
    b'', b'{}', gzip.compress(b'{}')[:-4], *map(gzip.compress, (b'[', b'[' * 10**5, b'\xff', b'[]', b'0' * 3000))],
                         ids=['empty', 'plain', 'cut', 'open', 'deep', 'bytes', 'list', 'large'])
def test_other_bytes_are_refused_in_one_line(data, tmp_path, monkeypatch):
    monkeypatch.setattr(per_image, 'BYTES', 2000 if len(data) < 100 else 10**6)
    (tmp_path / per_image.PER_IMAGE).write_bytes(data)
    with pytest.raises(ResultError) as raised:
        per_image.read_per_image(tmp_path)
    assert '\n' not in str(raised.value) and per_image.PER_IMAGE in str(raised.value)


def command(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, 'tools/compare.py', *map(str, args)], cwd=ROOT, capture_output=True,
                          text=True)


def test_the_command(tmp_path):
    a, b = (write(tmp_path / str(finds) / per_image.PER_IMAGE, detection(finds)).parent for finds in (0.5, 0.9))
    done = command(a, b)
    assert done.returncode == 0 and not done.stderr and f'B: {b}' in done.stdout and 'box mAP_s' in done.stdout
    assert 'does not cover the spread between seeds' in ' '.join(done.stdout.split())
    assert 'Miss' in done.stdout and max(map(len, done.stdout.splitlines()[2:])) <= 120
    as_json = command(a, b / per_image.PER_IMAGE, '--format', 'json')
    assert json.loads(as_json.stdout) == compare_files(a, b) and command(a, b).stdout == done.stdout
    refused = command(a, tmp_path / 'nowhere')
    assert refused.returncode == 2 and not refused.stdout and len(refused.stderr.splitlines()) == 1
    assert 'nowhere does not exist' in refused.stderr


def test_names_from_files_cannot_control_the_terminal(tmp_path):
    a = dict(detection(0.5), classes=['cat\x1b[2J', 'dog\n'])
    text = to_text(compared(tmp_path, a, dict(a, results=detection(0.9)['results'])), 'a\x1b', 'b')
    assert '\x1b' not in text and 'cat?[2J' in text and 'dog?' in text
