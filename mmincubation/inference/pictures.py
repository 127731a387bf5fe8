"""Draw what a model predicts into the image."""
import numpy as np
import torch
from PIL import Image, ImageDraw
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

SIDE = 128  # pixels that the picture of a classifier has at least, so that its caption can be read
SHOWN = 0.3  # objects of a lower score are not drawn
ALPHA = 0.5  # of the colour of a class over the image


def drawn(pixels: np.ndarray, result: dict, palette: np.ndarray) -> np.ndarray:
    """Return a picture of a result of `Predictor.predict` for these pixels, both (H, W, 3) uint8 in RGB order.

    `palette` (classes, 3) has the colours of classes. The picture of a classifier is enlarged by a whole factor if it
    is small.
    """
    if 'boxes' in result:
        return _objects(pixels, result, palette)
    if 'classes' in result:
        return (pixels * (1 - ALPHA) + palette[result['classes']] * ALPHA).astype(np.uint8)
    return _caption(pixels, f'{result["name"]} {result["scores"][result["name"]]:.2f}')


def _objects(pixels: np.ndarray, result: dict, palette: np.ndarray) -> np.ndarray:
    kept = np.flatnonzero(result['scores'] >= SHOWN)
    names = [f'{result["names"][i]} {result["scores"][i]:.2f}' for i in kept]
    masks = result['masks'][kept] if 'masks' in result else None
    return with_objects(pixels, result['boxes'][kept], masks, names, palette[result['labels'][kept]])


def with_objects(pixels: np.ndarray, boxes: np.ndarray, masks: np.ndarray | None, names: list[str],
                 colours: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) with boxes (N, 4), masks (N, H, W) bool, if any, and names, in colours (N, 3)."""
    if not len(boxes):
        return pixels
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    colours = [tuple(colour) for colour in colours.tolist()]
    if masks is not None:
        image = draw_segmentation_masks(image, torch.from_numpy(masks), ALPHA, colours)
    texts = ['black' if sum(colour) > 382 else 'white' for colour in colours]
    image = draw_bounding_boxes(image, torch.from_numpy(boxes), names, colours, width=2,
                                label_colors=texts, label_background_colors=colours, fill_labels=True)
    return image.permute(1, 2, 0).numpy()


def _caption(pixels: np.ndarray, text: str) -> np.ndarray:
    scale = -(-SIDE // min(pixels.shape[:2]))
    image = Image.fromarray(np.kron(pixels, np.ones((scale, scale, 1), np.uint8)))
    draw = ImageDraw.Draw(image)
    draw.rectangle(draw.textbbox((3, 3), text), fill='black')
    draw.text((3, 3), text, fill='white')
    return np.asarray(image)
