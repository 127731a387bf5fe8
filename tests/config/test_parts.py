"""Validation on images of training is refused before the run, unless it is on the very same ones."""
import pytest

from mmincubation.config.parts import part_problems
from mmincubation.config.problems import problems
from tests.helpers.toy import e2e_config, write_images


@pytest.fixture
def config(tmp_path):
    write_images(tmp_path / 'images')

    def build(train, other, kind: str = 'val', **changes):
        return e2e_config(tmp_path / 'images', tmp_path, **{
            'train_dataloader.dataset.fraction': train, f'{kind}_dataloader.dataset.fraction': other} | changes)

    return build


@pytest.mark.parametrize('train, val', [(.9, .1), (.9, (.8, 1)), (.5, 1.), (1., .1), ((.1, 1), .2)])
def test_parts_that_overlap_are_named(config, train, val, tmp_path):
    [line] = problems(config(train, val), 'train')
    assert line.startswith('val_dataloader.dataset and train_dataloader.dataset share images of ')
    assert line.endswith(', 1) here') and not problems(config(train, val, 'test'), 'test')  # how well it has learnt


def test_the_remedy(config, tmp_path):
    [line] = part_problems(config(.8, .2))
    assert line == (f'val_dataloader.dataset and train_dataloader.dataset share images of {tmp_path}/images, of which '
                    'they take 0 to 0.2 and 0 to 0.8: train on fraction=0.8, and give fraction=(0.8, 1) here')


@pytest.mark.parametrize('train, val', [
    (.9, (.9, 1)), ((.1, 1), .1), ((0, .5), (.5, .7)), (1., 1.), ((0, 1), 1.), (.5, .5), (2, .5)])
def test_parts_that_do_not(config, train, val):
    assert not [*part_problems(config(train, val))]


def test_folders_are_compared_by_where_they_are(config, tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path / 'images')
    (tmp_path / 'other').mkdir()
    for name, count in (('link', 1), ('other', 0), (None, 0)):
        root = name and str(tmp_path / name)
        assert len([*part_problems(config(.9, .1, **{'val_dataloader.dataset.root': root}))]) == count
    repeated = dict(type='RepeatDataset', times=2, dataset=config(.9, .1).train_dataloader.dataset)
    cfg = config(.9, .1, train_dataloader=dict(dataset=dict(repeated, _delete_=True)))
    [line] = part_problems(cfg)
    assert 'train_dataloader.dataset.dataset share' in line
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    assert not [*part_problems(cfg)]
