"""Crops and mirrored images that the preprocessor makes of a whole batch: torchvision's, never in evaluation."""
import pytest
import torch
from torchvision.transforms import functional

from mmincubation.errors import ConfigError
from mmincubation.models.classifier import ClsDataPreprocessor, crop_and_flip


def images(count: int = 64, height: int = 6, width: int = 9) -> torch.Tensor:
    return torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8, generator=torch.manual_seed(0))


def crops_of(image: torch.Tensor, padding: int) -> list[torch.Tensor]:
    """Return all crops of a padded image, by torchvision, plain ones before mirrored ones."""
    padded, size = functional.pad(image, [padding] * 4), image.shape[1:]
    plain = [functional.crop(padded, top, left, *size) for top in range(2 * padding + 1)
             for left in range(2 * padding + 1)]
    return plain + [functional.hflip(crop) for crop in plain]


def test_each_image_is_one_of_torchvisions_crops_and_all_of_them_are_drawn():
    given = images(2000)
    found, seen = crop_and_flip(given, 1, .5), set()
    assert found.dtype == torch.uint8 and found.shape == given.shape
    for image, crop in zip(given, found, strict=True):
        kinds = [i for i, expected in enumerate(crops_of(image, 1)) if torch.equal(crop, expected)]
        assert len(kinds) == 1
        seen.add(kinds[0])
    assert seen == set(range(18))


def test_flips_have_the_asked_probability():
    given = images(2000, 2, 2)
    share = [int((found == image.flip(2)).all()) for found, image in
             zip(crop_and_flip(given, 0, .25), given, strict=True)]
    assert .21 < sum(share) / 2000 < .29
    assert torch.equal(crop_and_flip(given, 0, 1.), given.flip(3))


def test_nothing_is_drawn_without_them_nor_in_evaluation():
    given, state = images(), torch.get_rng_state()
    assert crop_and_flip(given, 0, 0.) is given
    data = dict(inputs=given, labels=torch.zeros(64, dtype=torch.long))
    found = ClsDataPreprocessor(crop=2, flip=.5)(data)['inputs']
    assert torch.equal(found, ClsDataPreprocessor()(data, training=True)['inputs'])
    assert torch.equal(torch.get_rng_state(), state)


def test_training_normalises_what_was_cropped():
    given = images()
    data = dict(inputs=given, labels=torch.zeros(64, dtype=torch.long))
    torch.manual_seed(1)
    found = ClsDataPreprocessor(crop=2, flip=.5)(data, training=True)['inputs']
    torch.manual_seed(1)
    expected = ClsDataPreprocessor()(dict(data, inputs=crop_and_flip(given, 2, .5)))['inputs']
    assert torch.equal(found, expected)


@pytest.mark.parametrize('settings, line', [
    (dict(crop=-1), 'data_preprocessor.crop=-1: give the pixels'),
    (dict(crop=1.5), 'crop=1.5'), (dict(crop=True), 'crop=True'),
    (dict(flip=2), 'data_preprocessor.flip=2: give a probability'), (dict(flip=-.1), 'flip=-0.1'),
    (dict(flip=True), 'flip=True')])
def test_what_is_no_padding_or_probability_is_named(settings, line):
    with pytest.raises(ConfigError, match=line):
        ClsDataPreprocessor(**settings)
