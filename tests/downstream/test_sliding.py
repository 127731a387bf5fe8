"""Windows that slide over small images: the stock prediction where there is one, else that of the padded image."""
import pytest
import torch
from torch import nn

from mmincubation.downstream.sliding import pad_small_images

WINDOW = (8, 8)


class Segmentor(nn.Module):
    """Predict the image itself; `least` pixels a side are needed."""

    def __init__(self, least: int, mode: str = 'slide'):
        super().__init__()
        self.least, self.test_cfg, self.seen = least, dict(mode=mode, crop_size=WINDOW), []

    def slide_inference(self, inputs, batch_img_metas):
        self.seen.append(tuple(inputs.shape[2:]))
        if min(inputs.shape[2:]) < self.least:
            raise RuntimeError('Output size is too small')
        return inputs + 1


@pytest.mark.parametrize('size, seen', [((5, 3), [(5, 3), (8, 8)]), ((2, 20), [(2, 20), (8, 20)]), ((6, 6), [(6, 6)])])
def test_only_images_that_the_network_does_not_take_are_padded(size, seen):
    model = Segmentor(least=6)
    pad_small_images(model)
    image = torch.rand(1, 3, *size)
    assert torch.equal(model.slide_inference(image, []), image + 1) and model.seen == seen


def test_another_error_is_raised_as_it_is():
    model = Segmentor(least=30)
    pad_small_images(model)
    with pytest.raises(RuntimeError, match='too small'):
        model.slide_inference(torch.rand(1, 3, 8, 9), [])
    assert model.seen == [(8, 9)]


def test_a_segmentor_that_does_not_slide_is_left_alone():
    model = Segmentor(least=6, mode='whole')
    pad_small_images(model)
    assert 'slide_inference' not in vars(model)
