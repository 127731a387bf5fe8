"""tools/predict.py: pictures, masks and lists of a folder, for all three tasks; nothing of anybody else is replaced."""
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

import mmincubation
from mmincubation.inference.folder import find_images, predict_all
from tests.helpers.models import TASKS, small_model
from tests.helpers.paths import ROOT

TOOL = str(ROOT / 'tools/predict.py')


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """(config, checkpoint) of each task."""
    folder = tmp_path_factory.mktemp('models')
    for task in TASKS:
        (folder / task).mkdir()
    return {task: small_model(task, folder / task) for task in TASKS}


@pytest.fixture
def photos(tmp_path):
    """Images of the toy's size in two folders, and what is none."""
    root = tmp_path / 'photos'
    (root / 'sub').mkdir(parents=True)
    for i, name in enumerate(('b.png', 'a.jpg', 'sub/a.png', 'sub/a.tif', 'sub/.hidden.png')):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(root / name)
    return root


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


PICTURES = {f'pictures/{name}' for name in ('a.jpg', 'b.png', 'sub/a.png', 'sub/a.tif.png')}
LISTS = {'classes.txt', 'written_by_predict.txt'}


@pytest.mark.parametrize('task', TASKS)
def test_a_folder(task, models, photos, tmp_path, tool):
    before, out = files(photos), tmp_path / 'out'
    done = tool(*models[task], photos, '--out', out)
    assert done.returncode == 0 and done.stdout == f'4 images predicted, see {out}\n', done.stderr
    assert files(photos) == before
    found, model = files(out), mmincubation.load_model(*models[task])
    masks = {f'masks/{name}' for name in ('a.png', 'b.png', 'sub/a.png.png', 'sub/a.tif.png')}
    rest = masks if task == 'segmentation' else {'predictions.json'}
    assert set(found) == PICTURES | LISTS | rest
    assert found['classes.txt'].decode().splitlines() == list(model.names)
    if task == 'segmentation':
        with Image.open(out / 'masks/b.png') as picture:
            assert picture.mode == 'P' and bytes(picture.getpalette()[:450]) == model.palette.tobytes()
            assert (np.asarray(picture) == model.predict(photos / 'b.png')['classes']).all()
    else:
        check_list(task, rows := json.loads(found['predictions.json']), model.predict(photos / 'sub/a.png'))
        assert task == 'classification' or read_by_pycocotools(out / 'predictions.json') == len(rows)
    assert tool(*models[task], photos, '--out', out).returncode == 0
    assert files(out) == found, 'the same command gives the same bytes'


def read_by_pycocotools(path):
    truth = COCO()
    truth.dataset = dict(images=[dict(id=i) for i in range(1, 5)], annotations=[], categories=[])
    truth.createIndex()
    return len(truth.loadRes(str(path)).getAnnIds())


def check_list(task, rows, result):
    rows = [row for row in rows if row['file_name'] == 'sub/a.png']
    if task == 'classification':
        assert [(row['label'], row['name'], list(row['scores'])) for row in rows] == [
            (result['label'], result['name'], list(result['scores']))]
        return
    assert [row['category_name'] for row in rows] == result['names'] and {row['image_id'] for row in rows} == {3}
    boxes = np.array([row['bbox'] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, result['boxes'], atol=2e-3)
    assert (np.stack([mask_utils.decode(row['segmentation']) for row in rows]) == result['masks']).all()


def test_what_cannot_be_read_is_named_and_skipped(models, photos, tmp_path, tool):
    (photos / 'c.png').write_bytes((photos / 'b.png').read_bytes()[:60])
    (photos / 'notes.txt').write_text('no image')
    done = tool(*models['classification'], photos, '--out', tmp_path / 'out')
    assert done.returncode == 1 and done.stdout.endswith('4 images predicted, see ' + f'{tmp_path}/out; 1 skipped\n')
    said = [line for line in done.stderr.splitlines() if line.startswith('skipped: ')]
    assert len(said) == 2 and 'c.png: ' in said[0] and said[1].endswith('images, first notes.txt')
    assert len(json.loads((tmp_path / 'out/predictions.json').read_text())) == 4


def test_an_image_on_which_the_model_fails_is_named_and_skipped(models, photos, tmp_path, monkeypatch, capfd):
    """Such as a large one: mmseg enlarges the scores of all classes to the size of the image."""
    model = mmincubation.load_model(*models['classification'])
    step, left = model.model.test_step, iter([None, RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory\nframe #0"),
        ValueError('odd'), MemoryError()])

    def failing(data):
        if error := next(left):
            raise error
        return step(data)

    monkeypatch.setattr(model.model, 'test_step', failing)
    images = ['a.jpg', 'b.png', 'sub/a.png', 'sub/a.tif']
    assert predict_all(model, photos, images, tmp_path / 'out') == 3
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith('skipped: ')]
    assert said[0].startswith(f'skipped: {photos}/b.png: [enforce fail') and said[0].endswith(
        "can't allocate memory. Give a smaller image, or parts of it")
    assert f'{photos}/sub/a.png: ValueError: odd (' in said[1] and f'{photos}/sub/a.tif: out of memory. Give' in said[2]
    assert set(files(tmp_path / 'out')) == {'pictures/a.jpg', 'predictions.json'} | LISTS
    assert len(json.loads((tmp_path / 'out/predictions.json').read_text())) == 1


def test_one_image(models, photos, tmp_path, tool):
    assert tool(*models['classification'], photos / 'sub/a.tif', '--out', tmp_path / 'out').returncode == 0
    assert set(files(tmp_path / 'out')) == {'pictures/a.tif.png', 'predictions.json'} | LISTS


def test_files_of_others_stay(models, photos, tmp_path, tool):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'classes.txt').write_text('mine')
    done = tool(*models['classification'], photos, '--out', out)
    assert done.returncode == 2 and f'error: {out}/classes.txt is there already' in done.stderr
    assert files(out) == {'classes.txt': b'mine'}


def test_a_second_run_removes_its_own_old_files_alone(models, photos, tmp_path, tool):
    out, outside = tmp_path / 'out', tmp_path / 'outside.txt'
    outside.write_text('mine')
    assert tool(*models['classification'], photos, '--out', out).returncode == 0
    (out / 'pictures/mine.png').write_text('mine')
    with open(out / 'written_by_predict.txt', 'a') as file:
        file.write('\n../outside.txt\n' + str(outside))
    (photos / 'b.png').unlink()
    assert tool(*models['classification'], photos, '--out', out).returncode == 0
    assert set(files(out)) == PICTURES - {'pictures/b.png'} | LISTS | {'pictures/mine.png', 'predictions.json'}
    assert outside.read_text() == 'mine'


def test_nothing_is_written_into_the_images_unless_told(models, photos, monkeypatch, tool):
    checkpoint = models['classification']
    monkeypatch.chdir(photos)
    done = tool(*checkpoint, '.')
    assert done.returncode == 2 and 'lies in the folder of the images; give another --out' in done.stderr
    assert tool(*checkpoint, '.', '--out', '.').returncode == 2
    for _ in range(2):  # what lies in the folder is not predicted
        assert tool(*checkpoint, '.', '--out', 'out').returncode == 0
        assert set(files(photos / 'out')) == PICTURES | LISTS | {'predictions.json'}


def test_linked_folders_are_read_once(tmp_path):
    for name in ('photos/own/a.png', 'far/b.png', 'photos/out/c.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    for link, target in (('far', 'far'), ('near', 'far'), ('alias', 'photos/own'), ('round', 'photos'),
                         ('up', ''), ('written', 'photos/out')):
        (tmp_path / 'photos' / link).symlink_to(tmp_path / target)
    (tmp_path / 'far/back').symlink_to(tmp_path / 'far')
    found = find_images(tmp_path / 'photos', tmp_path / 'photos/out', told=True)
    assert found == (['far/b.png', 'own/a.png'], [])


def test_without_images_there_is_one_line(models, tmp_path, tool):
    (tmp_path / 'empty').mkdir()
    for source, words in ((tmp_path / 'empty', 'holds no images'), (tmp_path / 'none', 'none: does not exist')):
        done = tool(*models['classification'], source, '--out', tmp_path / 'out')
        assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
