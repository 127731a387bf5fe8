"""Columns of Arrow folders that are not as HFImages needs them."""
import re

import pytest
from PIL import Image

from mmincubation.datasets.classification import HFImages
from mmincubation.errors import ConfigError


def test_columns_of_other_kinds_are_told_how_they_become_right(tmp_path):
    hf = pytest.importorskip('datasets')
    picture = tmp_path / 'a.png'
    Image.new('RGB', (4, 4), (9, 0, 0)).save(picture)
    bare = hf.Dataset.from_dict(dict(
        image=[dict(bytes=picture.read_bytes(), path=None)] * 2, label=['b', 'a']),
        features=hf.Features(image=dict(bytes=hf.Value('binary'), path=hf.Value('string')), label=hf.Value('string')))
    pictured, whole = bare.cast_column('image', hf.Image()), bare.cast_column('image', hf.Image()).class_encode_column(
        'label')
    for i, (rows, said) in enumerate(((bare, "'image' becomes one by rows.cast_column('image', datasets.Image())"), (
            pictured, "'label' becomes one by rows.class_encode_column('label')"))):
        rows.save_to_disk(str(tmp_path / str(i)))
        with pytest.raises(ConfigError, match=re.escape(f'; it has none; {said} before save_to_disk')):
            HFImages(str(tmp_path / str(i)))
    whole.save_to_disk(str(tmp_path / 'whole'))
    sample = HFImages(str(tmp_path / 'whole'))[0]
    assert sample['labels'] == 1 and int(sample['inputs'][0, 0, 0]) == 9


def test_a_row_without_an_image_is_named(tmp_path):
    hf = pytest.importorskip('datasets')
    rows = hf.Dataset.from_dict(dict(image=[None], label=[0]), features=hf.Features(
        image=hf.Image(), label=hf.ClassLabel(names=['a'])))
    rows.save_to_disk(str(tmp_path / 'rows'))
    with pytest.raises(ConfigError, match=r'rows, row 0 has no image \(null\)$'):
        HFImages(str(tmp_path / 'rows'))[0]
