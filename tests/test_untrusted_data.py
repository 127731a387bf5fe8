"""Data sets, results and annotations of strangers: nothing in them is executed, and they name no files elsewhere."""
import json
import os
import pickle
import shutil
from pathlib import Path

import mmengine
import numpy as np
import pytest

from mmincubation.datasets.classification import HFImages
from mmincubation.errors import ConfigError
from mmincubation.leaderboard.board import FORMATS, in_format, make_board
from mmincubation.result import ResultError, read_result
from tests.helpers.results import put
from tests.helpers.synthetic_coco import write_coco
from tests.test_untrusted import Live


@pytest.fixture
def split(tmp_path):
    """A folder of save_to_disk."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    from PIL import Image
    pictures = [Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)) for i in range(4)]
    features = Features(image=ImageColumn(), label=ClassLabel(names=['a', 'b']))
    Dataset.from_dict(dict(image=pictures, label=[0, 1, 0, 1]), features=features).save_to_disk(tmp_path / 'split')
    return tmp_path / 'split'


def rewrite_arrow(split: Path, change) -> None:
    import pyarrow as pa
    file = next(split.glob('*.arrow'))
    with pa.OSFile(str(file)) as source:
        table = change(pa.ipc.open_stream(source).read_all())
    with pa.OSFile(str(file), 'wb') as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


EXTENSIONS = ['arrow.py_extension_type', 'pyarrow.py_extension_type', 'datasets.features.features.Array2DExtensionType']


@pytest.mark.parametrize('name', EXTENSIONS)
def test_a_pickle_in_an_arrow_extension_type_is_not_executed(split, tmp_path, name):
    import pyarrow as pa
    ran = tmp_path / 'executed'

    def add(table):
        kind = {b'ARROW:extension:name': name.encode(), b'ARROW:extension:metadata': pickle.dumps(Live(ran))}
        schema = pa.schema([*table.schema, pa.field('more', pa.int64(), metadata=kind)], table.schema.metadata)
        return pa.table([*table.columns, pa.array(range(len(table)))], schema=schema)

    rewrite_arrow(split, add)
    try:
        assert len([HFImages(str(split))[i] for i in range(4)]) == 4
    except ConfigError:
        pass  # refused as a whole, as well
    assert not ran.exists()


def test_features_of_a_split_cannot_name_other_classes(split):
    info = json.loads((split / 'dataset_info.json').read_text())
    info['features']['label'] = dict(_type='Path', _flag='x')
    (split / 'dataset_info.json').write_text(json.dumps(info))
    with pytest.raises(ConfigError):
        HFImages(str(split))


@pytest.mark.parametrize('name', ['../other/data-00000-of-00001.arrow', '{split}/data-00000-of-00001.arrow', 'a/b'])
def test_a_split_names_no_files_elsewhere(split, name):
    shutil.copytree(split, split.parent / 'other')
    state = json.loads((split / 'state.json').read_text())
    state['_data_files'][0]['filename'] = name.format(split=split.parent / 'other')
    (split / 'state.json').write_text(json.dumps(state))
    with pytest.raises(ConfigError, match='state.json names .* not in this folder'):
        HFImages(str(split))


@pytest.mark.parametrize('text', ['{', '[]', '{"_data_files": 3}', '[' * 100_000])
def test_a_broken_state_of_a_split_is_one_line(split, text):
    (split / 'state.json').write_text(text)
    with pytest.raises(ConfigError, match='save_to_disk'):
        HFImages(str(split))


def test_a_row_that_names_a_file_is_refused(split, images):
    """It could show any picture of this machine."""
    import pyarrow as pa
    private = str(images / '0/0.png')

    def names_only(table):
        column = pa.StructArray.from_arrays(
            [pa.array([None] * len(table), pa.binary()), pa.array([private] * len(table))], ['bytes', 'path'])
        return table.set_column(0, table.schema.field(0), column)

    rewrite_arrow(split, names_only)
    with pytest.raises(ConfigError, match=f'row 0 names a file, {private!r}'):
        HFImages(str(split)).read(0)


OUTSIDE = ['../secret', '/etc/secret', 'a/../../secret', 'C:\\secret', 'file:secret', 'a\0b']


@pytest.mark.parametrize('name', OUTSIDE)
@pytest.mark.parametrize('key, suffix', [('pictures', '.png'), ('outputs', '.safetensors')])
def test_a_result_names_no_files_elsewhere(tmp_path, name, key, suffix):
    path = put(tmp_path, 'e2e', 50.)
    result = json.loads(path.read_text())
    file = name + suffix
    result[key] = [file] if key == 'pictures' else [dict(path=file, sha256='a' * 64)]
    path.write_text(json.dumps(result))
    with pytest.raises(ResultError, match=f'{key}.*at or below the folder'):
        read_result(path)
    board = make_board([tmp_path])
    assert not board.sections and len(board.problems) == 1


def test_text_of_a_result_is_text_in_the_tables(tmp_path):
    """Every text of the schema, not only the names."""
    path = put(tmp_path, 'e2e', 50., weights=dict(path='w', sha256='a' * 64, coverage='all'))
    bad = '<script>alert(1)</script>"\'><img src=x onerror=alert(1)>\x1b[2J\u202e'

    def spoil(value, key=''):
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        fixed = ('sha256', 'config_sha256', 'git_commit', 'finished_at', 'task')
        return bad if isinstance(value, str) and key not in fixed else value

    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    board = make_board([tmp_path])
    page = in_format(board, 'html')
    assert not board.problems and 'alert' in page
    assert page.count('<script') == 1 and '<img src=x' not in page
    assert not {'\x1b', '\u202e'} & set(''.join(in_format(board, form) for form in (None, *FORMATS)))


@pytest.mark.parametrize('name', ['../val2017/{}', '{root}/val2017/{}', 'a/../../val2017/{}'])
def test_check_reports_images_outside_of_the_data(tmp_path, name):
    from mmincubation.check.data import report_data
    from mmincubation.check.report import Report
    from mmincubation.check.sampling import Sampling
    write_coco(tmp_path)
    file = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(file.read_text())
    other = sorted(os.listdir(tmp_path / 'val2017'))[0]
    content['images'][0]['file_name'] = name.format(other, root=tmp_path)
    file.write_text(json.dumps(content))
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='annotations/instances_train2017.json',
                   data_prefix=dict(img='train2017/'))
    cfg = mmengine.Config(dict(default_scope='mmdet', model=dict(), train_dataloader=dict(dataset=dataset)))
    report = Report()
    report.section('Data')
    report_data(cfg, report, Sampling(False))
    assert "outside of the data set's folder" in report.text() and other in report.text()
