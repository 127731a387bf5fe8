"""The embedded demo data: what is in them, that a seed fixes every byte, that they appear in one stroke."""

import hashlib
import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from sklearn.datasets import load_digits

from mmincubation.demo import compose, sources
from mmincubation.demo.data import CLASSES, MANIFEST, folder_digest, write_classification, write_demo_data
from tests.helpers.paths import ROOT

SMALL = {'cls_train': 40, 'cls_val': 20, 'scenes_train': 24, 'scenes_val': 12}


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'demo'
    assert write_demo_data(root, seed=3, **SMALL)
    return root


@pytest.fixture(scope='module')
def coco(demo):
    return {s: json.loads((demo / f'scenes/annotations/instances_{s}.json').read_text()) for s in sources.SPLITS}


def read_seg(demo, split, name):
    return cv2.imread(str(demo / 'scenes' / split / 'seg' / name), cv2.IMREAD_UNCHANGED)


def files_of(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob('*') if p.is_file()}


# sources


def test_digit_splits_are_disjoint_complete_and_stratified():
    train, val = sources.digit_indices('train'), sources.digit_indices('val')
    assert not set(train) & set(val)
    assert sorted([*train, *val]) == list(range(1797))
    seen = {s: {d.tobytes() for group in sources.digits(s) for d in group} for s in sources.SPLITS}
    assert not seen['train'] & seen['val']
    for label in range(10):
        count = {s: len(sources.digits(s)[label]) for s in sources.SPLITS}
        assert count['val'] / sum(count.values()) == pytest.approx(0.2, abs=0.01)


def test_digits_keep_their_labels():
    pixels, target = load_digits(return_X_y=True)
    truth = {(p / 16).astype(np.float32).tobytes(): t for p, t in zip(pixels, target, strict=True)}
    for split in sources.SPLITS:
        for label, group in enumerate(sources.digits(split)):
            assert {truth[digit.tobytes()] for digit in group} == {label}


def test_photos_are_colour_and_their_regions_meet_without_overlap():
    regions = zip(sources.PHOTO_FILES, sources.photos('train'), sources.photos('val'), strict=True)
    for (package, name), train, val in regions:
        whole = sources._read_photo(package, name)
        np.testing.assert_array_equal(np.concatenate([train, val], axis=1), whole)
        assert np.ptp(whole.astype(int), axis=2).mean() > 5, f'{name} is grey'
        assert min(train.shape[:2] + val.shape[:2]) >= compose.SCENE_PHOTO[0]


def test_photos_come_from_the_installed_files_without_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('tried the network')

    monkeypatch.setattr('socket.socket.connect', refuse)
    sources.photos.cache_clear()
    assert len(sources.photos('train')) == len(sources.PHOTO_FILES)


def test_missing_photo_and_unknown_split_are_named(monkeypatch):
    monkeypatch.setattr(sources, 'PHOTO_FILES', (('skimage', 'data/gone.png'),))
    sources.photos.cache_clear()
    with pytest.raises(FileNotFoundError, match='gone.png.*requirements.txt'):
        sources.photos('val')
    with pytest.raises(ValueError, match="'test'.*train, val"):
        sources.digits('test')


# composition


@pytest.mark.parametrize('size', [18, 25, 40])
def test_upsampled_digit_still_is_the_digit(size):
    ink = sources.digits('train')[3][0]
    large = compose.upsample(ink, size)
    assert large.shape == (size, size) and 0 <= large.min() and large.max() <= 1
    back = cv2.resize(large, (8, 8), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(back.ravel(), ink.ravel())[0, 1] > 0.95


def test_digit_is_bright_and_photo_is_dim():
    for index in range(20):
        rng = np.random.default_rng([9, index])
        backdrop = compose.photo_crop(rng, 'train', 32, (32, 96))
        assert backdrop.max() <= 255 * compose.PHOTO_DIM
        image = compose.classification_image(rng, 'train', index % 10)
        assert image.shape == (32, 32, 3) and image.max(axis=2).max() >= 140


def test_overlap_rule_counts_hidden_pixels():
    lower, upper = np.zeros((2, 10, 10), np.float32)
    lower[:, :4] = 1
    upper[:2, :] = 1  # hides a fifth of the lower one
    assert compose._recognisable([lower, upper])
    upper[:3, :] = 1
    assert not compose._recognisable([lower, upper])
    assert compose._visible([lower, upper]).sum(axis=(1, 2)).tolist() == [28, 30]


def test_some_digits_overlap_and_none_is_hidden():
    hidden = []
    for index in range(60):
        _, alphas = compose._place_digits(np.random.default_rng([5, index]), 'train')
        whole = (np.stack(alphas) >= compose.INK).sum(axis=(1, 2))
        hidden += list(1 - compose._visible(alphas).sum(axis=(1, 2)) / whole)
    assert max(hidden) <= 1 - compose.MIN_VISIBLE
    assert 0.1 < np.mean(np.array(hidden) > 0) < 0.5


# files


def test_a_seed_gives_identical_bytes_and_another_seed_others(demo, tmp_path):
    write_demo_data(tmp_path / 'again', seed=3, **SMALL)
    assert files_of(tmp_path / 'again') == files_of(demo)
    write_demo_data(tmp_path / 'other', seed=4, **SMALL)
    assert folder_digest(tmp_path / 'other') != folder_digest(demo)


def test_an_image_depends_on_its_index_alone(demo, tmp_path):
    write_classification(tmp_path, 'train', 20, seed=3)
    longer = files_of(demo / 'cls')
    assert all(longer[name] == content for name, content in files_of(tmp_path).items())


def test_splits_share_no_image(demo):
    def hashes(split):
        images = (p for p in demo.glob(f'*/{split}/**/*.png') if 'seg' not in p.parts)
        return {hashlib.sha256(p.read_bytes()).digest() for p in images}

    assert len(hashes('train')) == 64 and len(hashes('val')) == 32
    assert not hashes('train') & hashes('val')


def test_counts_and_manifest(demo):
    for split in sources.SPLITS:
        names = [p.parent.name for p in sorted((demo / 'cls' / split).glob('*/*.png'))]
        assert names == sorted(CLASSES * (SMALL[f'cls_{split}'] // 10))
        for kind in ('img', 'seg'):
            assert len(list((demo / 'scenes' / split / kind).glob('*.png'))) == SMALL[f'scenes_{split}']
    manifest = json.loads((demo / MANIFEST).read_text())
    assert manifest['sha256'] == folder_digest(demo)
    assert manifest['parameters']['seed'] == 3
    assert manifest['parameters']['counts']['scenes'] == {'train': 24, 'val': 12}


@pytest.mark.parametrize('split', sources.SPLITS)
def test_instances_are_consistent(demo, coco, split):
    data = coco[split]
    assert [(c['id'], c['name']) for c in data['categories']] == [(d + 1, str(d)) for d in range(10)]
    assert len({a['id'] for a in data['annotations']}) == len(data['annotations'])
    for image in data['images']:
        own = [a for a in data['annotations'] if a['image_id'] == image['id']]
        assert 3 <= len(own) <= 6
        for record in own:
            mask = mask_utils.decode(record['segmentation'])
            rows, columns = np.nonzero(mask)
            x, y, w, h = record['bbox']
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert 0 <= x and 0 <= y and x + w <= image['width'] and y + h <= image['height']
            assert isinstance(record['segmentation']['counts'], str)
            assert record['area'] == mask.sum() >= 40 and record['iscrowd'] == 0


@pytest.mark.parametrize('split', sources.SPLITS)
def test_masks_and_semantic_map_agree(demo, coco, split):
    for image in coco[split]['images']:
        seg = read_seg(demo, split, image['file_name'])
        assert seg.dtype == np.uint8 and seg.shape == (192, 192) and seg.max() <= 11
        assert (seg == 0).any() and (seg == 1).mean() > 0.3
        label = np.ones_like(seg)
        for record in (a for a in coco[split]['annotations'] if a['image_id'] == image['id']):
            mask = mask_utils.decode(record['segmentation']).astype(bool)
            assert (label[mask] == 1).all(), 'two instances claim a pixel'
            label[mask] = record['category_id'] + 1
            assert np.isin(seg[mask], [0, record['category_id'] + 1]).all()
        np.testing.assert_array_equal(seg[seg > 0], label[seg > 0])


# one stroke


def test_same_parameters_are_kept(demo):
    before = {p: p.stat().st_mtime_ns for p in demo.rglob('*')}
    assert not write_demo_data(demo, seed=3, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in demo.rglob('*')} == before


def test_other_content_is_refused_with_a_remedy(tmp_path):
    root, few = tmp_path / 'demo', {'cls_train': 10, 'cls_val': 10, 'scenes_train': 1, 'scenes_val': 1}
    root.mkdir()  # empty: may be filled
    assert write_demo_data(root, **few)
    with pytest.raises(FileExistsError, match="demo holds.*'seed': 0.*not.*'seed': 1.*move it away"):
        write_demo_data(root, seed=1, **few)
    (root / 'cls/train/0/00000.png').unlink()
    with pytest.raises(FileExistsError, match='changed after writing.*move it away'):
        write_demo_data(root, **few)
    (root / MANIFEST).unlink()
    with pytest.raises(FileExistsError, match='holds no demo data'):
        write_demo_data(root, **few)


def test_killed_attempt_leaves_nothing_in_the_way(tmp_path):
    code = f'from mmincubation.demo.data import write_demo_data; write_demo_data({str(tmp_path / "demo")!r})'
    child = subprocess.Popen([sys.executable, '-c', code], cwd=ROOT)
    try:
        while not list((tmp_path / '.demo.partial').glob('cls/train/9/*.png')):
            assert child.poll() is None, 'ended before it could be killed'
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not (tmp_path / 'demo').exists()
    assert write_demo_data(tmp_path / 'demo', cls_train=10, cls_val=10, scenes_train=1, scenes_val=1)
    assert len(list((tmp_path / 'demo/cls/train').glob('*/*.png'))) == 10
    assert not (tmp_path / '.demo.partial').exists()


def test_tool_reports_refusal_in_one_line(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    tool = [sys.executable, str(ROOT / 'tools/make_demo_data.py'), '--root', str(tmp_path)]
    done = subprocess.run(tool, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and 'holds no demo data' in done.stderr
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_needs_no_torch():
    code = 'import sys, mmincubation.demo.data; sys.exit("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
