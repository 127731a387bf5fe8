"""Compose demo images: bright handwritten digits over dimmed photographs. Arrays only, no files."""

from typing import NamedTuple

import cv2
import numpy as np

from .sources import digits, photos

PHOTO_DIM = 0.4  # brighter photographs leave a small ViT at chance for many minutes
BRIGHTNESS = (170, 255)
TINT = 25  # the colour channels of a digit differ by at most this much
CLS_CANVAS, CLS_SIZES, CLS_PHOTO = 32, (18, 32), (32, 96)
# Twice the size that the demo's models see, so that boxes and labels drawn on the pictures can be read.
SCENE_CANVAS, SCENE_SIZES, SCENE_PHOTO, SCENE_COUNT = 192, (36, 80), (96, 288), (3, 6)
INK = 0.5  # at least this opaque: the pixel belongs to the digit
SOFT = 0.15  # between SOFT and INK: neither clearly digit nor clearly background, left unlabelled
MIN_VISIBLE = 0.75  # of its own pixels; digits hidden much more than this are guesswork
MAX_DRAWS = 100
SHADOW, SHADOW_WIDTH = 0.8, 3  # strength and pixels (sigma): without it, overlapping bright digits run together
SEG_UNLABELLED, SEG_BACKGROUND, SEG_FIRST_DIGIT = 0, 1, 2


class Stamp(NamedTuple):
    """A digit to be drawn: its label, top-left corner, and opacity ``(size, size)`` in 0..1; size is its side in
    pixels.
    """

    label: int
    top: int
    left: int
    alpha: np.ndarray

    def on_canvas(self, canvas: int) -> np.ndarray:
        """Return the opacity on a square canvas of ``canvas`` pixels a side, 0 away from the digit."""
        full = np.zeros((canvas, canvas), np.float32)
        size = len(self.alpha)
        full[self.top : self.top + size, self.left : self.left + size] = self.alpha
        return full


class Scene(NamedTuple):
    """One picture with several digits.

    ``image`` is uint8 RGB ``(h, w, 3)``; ``labels`` holds each digit's 0..9; ``masks`` is bool ``(n, h, w)``, the
    visible pixels of each digit; ``seg`` is uint8 ``(h, w)``: 0 unlabelled, 1 background, 2..11 digit 0..9.
    """

    image: np.ndarray
    labels: list[int]
    masks: np.ndarray
    seg: np.ndarray


def upsample(ink: np.ndarray, size: int) -> np.ndarray:
    """Enlarge an 8x8 digit smoothly to ``(size, size)``, opacity 0..1."""
    # A margin of empty paper, cut off again, softens strokes that touch the edge of the 8x8 grid.
    side = round(size * 10 / 8)
    large = cv2.resize(np.pad(ink, 1), (side, side), interpolation=cv2.INTER_CUBIC)
    start = (side - size) // 2
    return np.clip(large[start : start + size, start : start + size], 0, 1)


def photo_crop(rng: np.random.Generator, split: str, canvas: int, sides: tuple[int, int]) -> np.ndarray:
    """Return a random square of a random photo, dimmed: float32 RGB ``(canvas, canvas, 3)``.

    ``sides`` are the smallest and the largest side of the square in pixels of the photo.
    """
    photo = photos(split)[rng.integers(len(photos(split)))]
    height, width = photo.shape[:2]
    side = int(rng.integers(sides[0], min(height, width, sides[1]) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    method = cv2.INTER_AREA if side > canvas else cv2.INTER_LINEAR
    crop = cv2.resize(photo[top : top + side, left : left + side], (canvas, canvas), interpolation=method)
    return crop.astype(np.float32) * PHOTO_DIM


def draw_stamp(rng: np.random.Generator, split: str, label: int, canvas: int, sizes: tuple[int, int]) -> Stamp:
    """Return a random digit of this label at a random size and place, fully inside the canvas."""
    pool = digits(split)[label]
    ink = pool[rng.integers(len(pool))]
    size = int(rng.integers(sizes[0], sizes[1] + 1))
    top, left = (int(v) for v in rng.integers(canvas - size + 1, size=2))
    return Stamp(label, top, left, upsample(ink, size))


def paint(rng: np.random.Generator, image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend a digit of random, nearly white colour over ``image`` with opacity ``alpha`` ``(h, w)``."""
    colour = np.clip(rng.integers(BRIGHTNESS[0], BRIGHTNESS[1] + 1) - rng.integers(TINT + 1, size=3), 0, 255)
    return image + alpha[..., None] * (colour.astype(np.float32) - image)


def cast_shadow(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Darken ``image`` around a digit of opacity ``alpha`` ``(h, w)`` that is about to be painted over it."""
    reach = np.clip(2 * cv2.GaussianBlur(alpha, (0, 0), SHADOW_WIDTH), 0, 1)
    return image * (1 - SHADOW * reach[..., None])


def classification_image(rng: np.random.Generator, split: str, label: int) -> np.ndarray:
    """Draw one digit of this label over a photo, uint8 RGB ``(32, 32, 3)``."""
    image = photo_crop(rng, split, CLS_CANVAS, CLS_PHOTO)
    stamp = draw_stamp(rng, split, label, CLS_CANVAS, CLS_SIZES)
    return np.rint(paint(rng, image, stamp.on_canvas(CLS_CANVAS))).astype(np.uint8)


def _visible(alphas: list[np.ndarray]) -> np.ndarray:
    """Return the pixels of each digit that no later one covers, bool ``(n, h, w)``."""
    ink = np.stack(alphas) >= INK
    for lower in range(len(ink)):
        ink[lower] &= ~ink[lower + 1 :].any(axis=0)
    return ink


def _recognisable(alphas: list[np.ndarray]) -> bool:
    whole = (np.stack(alphas) >= INK).sum(axis=(1, 2))
    return bool((_visible(alphas).sum(axis=(1, 2)) >= MIN_VISIBLE * whole).all())


def _place_digits(rng: np.random.Generator, split: str) -> tuple[list[int], list[np.ndarray]]:
    """Return labels and opacities of a scene's digits, the last on top; draw one anew that would hide too much."""
    labels, alphas = [], []
    for label in rng.integers(10, size=rng.integers(SCENE_COUNT[0], SCENE_COUNT[1] + 1)):
        for _ in range(MAX_DRAWS):
            alpha = draw_stamp(rng, split, int(label), SCENE_CANVAS, SCENE_SIZES).on_canvas(SCENE_CANVAS)
            if _recognisable([*alphas, alpha]):
                labels.append(int(label))
                alphas.append(alpha)
                break
    return labels, alphas


def semantic_map(labels: list[int], alphas: list[np.ndarray]) -> np.ndarray:
    """Return an ADE-style map, uint8 ``(h, w)``: 0 unlabelled (soft edges), 1 background, 2..11 digit 0..9."""
    seg = np.full(alphas[0].shape, SEG_BACKGROUND, np.uint8)
    for label, alpha in zip(labels, alphas, strict=True):
        seg[alpha >= SOFT] = SEG_UNLABELLED
        seg[alpha >= INK] = SEG_FIRST_DIGIT + label
    return seg


def scene(rng: np.random.Generator, split: str) -> Scene:
    """Draw three to six digits over a photo, 192x192; they may overlap, but each can be recognised."""
    image = photo_crop(rng, split, SCENE_CANVAS, SCENE_PHOTO)
    labels, alphas = _place_digits(rng, split)
    for alpha in alphas:
        image = paint(rng, cast_shadow(image, alpha), alpha)
    return Scene(np.rint(image).astype(np.uint8), labels, _visible(alphas), semantic_map(labels, alphas))
