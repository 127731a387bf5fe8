"""Data sets of mmdet that are not COCO's: objects that their readers leave out in silence are told."""
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmincubation.errors import DataError

XML = """<annotation><size><width>60</width><height>40</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><ymin>5</ymin><xmax>21</xmax><ymax>30</ymax></bndbox></object>
<object><name>Dog</name><bndbox><xmin>30</xmin><ymin>5</ymin><xmax>50</xmax><ymax>30</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr('mmincubation.datasets.checked.print_log', lambda text, *_: lines.append(text))
    return lines


def voc(root, *classes: str, xml: str = XML, **more):
    """Two images in the layout of PASCAL VOC."""
    for folder in ('JPEGImages', 'Annotations'):
        (root / folder).mkdir(exist_ok=True)
    for i in range(2):
        Image.new('RGB', (60, 40)).save(root / f'JPEGImages/{i}.jpg')
        (root / f'Annotations/{i}.xml').write_text(xml)
    (root / 'list.txt').write_text('0\n1\n')
    init_default_scope('mmdet')
    dataset = dict(type='XMLDataset', data_root=str(root), ann_file='list.txt', data_prefix=dict(sub_data_root=''),
                   metainfo=dict(classes=classes), pipeline=[dict(type='LoadImageFromFile'),
                                                             dict(type='LoadAnnotations', with_bbox=True)])
    return DATASETS.build(dict(type='mmincubation.CheckedDataset', place='train_dataloader.dataset',
                               dataset=dataset | more))


def test_classes_of_other_names_than_the_files_are_told(tmp_path, said):
    assert voc(tmp_path, 'cat', 'Dog')[0]['gt_bboxes_labels'].tolist() == [0, 1] and not said
    assert voc(tmp_path, 'cat', 'dog')[0]['gt_bboxes_labels'].tolist() == [0]
    assert said == [f'train_dataloader.dataset: {tmp_path}/list.txt: no object of 1 of 2 classes (dog); objects '
                    'that are ignored do not count']


def test_where_no_image_is_left_the_reason_is_told(tmp_path, said):
    with pytest.raises(DataError, match="leaves none of its 2 images: 0 are smaller than min_size, 2 have no object of "
                       'metainfo.classes; correct filter_cfg or metainfo.classes$'):
        voc(tmp_path, 'Cat', 'dog', filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(DataError, match='2 are smaller than min_size'):
        voc(tmp_path, 'cat', filter_cfg=dict(min_size=50))


def test_unlabelled_test_data_are_right(tmp_path, said):
    empty = '<annotation><size><width>60</width><height>40</height></size></annotation>'
    assert len(voc(tmp_path, 'cat', 'dog', xml=empty, test_mode=True)) == 2 and not said
    assert len(voc(tmp_path, 'cat', 'dog', xml=empty)) == 2
    assert 'no object of any class' in said[0]
