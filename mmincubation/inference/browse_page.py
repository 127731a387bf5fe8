"""Write what a model sees as one HTML page that needs no other file and no script."""
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

import numpy as np
from PIL import Image

from mmincubation.leaderboard.page import image as png_html
from mmincubation.leaderboard.page import policy, text

from .browse import Look, Seen
from .pictures import ALPHA, with_objects

STYLE = '''
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; } th { text-align: left; vertical-align: top; padding-right: 1rem; }
td, th { padding-bottom: .2rem; } article { border-top: 1px solid #ccc; margin-top: 1.2rem; padding-top: .6rem; }
h2 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; } figure { margin: 0; max-width: 44rem; }
img { max-width: 100%; min-width: 14rem; image-rendering: pixelated; } figcaption, .key { color: #555; }
.key span { margin-right: .9rem; white-space: nowrap; } svg { vertical-align: -1px; margin-right: .3rem; }
'''
STRIPE = 4  # pixels of the black and white stripes on ignored pixels
MANY = 30  # classes that the table and a legend list


def to_html(look: Look, config: str) -> str:
    """Return the page; equal looks give equal text."""
    title = text(f'What the model sees: {config}, {look.facts["split"]}')
    rows = ''.join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>\n'
                   for name, value in numbers(look).items())
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy(STYLE)}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
            f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table>\n{rows}</table>\n'
            f'{"".join(article(look, seen) for seen in look.seen)}</body>\n</html>\n')


def numbers(look: Look) -> dict[str, str]:
    """Return what all images together show, by its title."""
    facts, seen = look.facts, look.seen
    sizes = Counter(f'{one.pixels.shape[1]} x {one.pixels.shape[0]}' for one in seen)
    found = {
        'images': f'{len(seen)} of {facts["images"]:,}, in batches of {facts["batch"]}, seed {facts["seed"]}',
        'width x height after padding': listed(sizes),
        'channels': facts['order'],
        'mean': rounded(facts['mean']), 'standard deviation': rounded(facts['std']),
        'values that the model gets': f'{min(o.range[0] for o in seen):.3f} to {max(o.range[1] for o in seen):.3f}'}
    counts = Counter(label for one in seen for label in labels_of(one, look))
    if any(one.boxes is not None for one in seen):
        per_image = [len(one.boxes) for one in seen if one.boxes is not None]
        found['objects'] = f'{sum(per_image)}, on an image {min(per_image)} to {max(per_image)}'
        found['images without objects'] = str(per_image.count(0))
    maps = [one.classes for one in seen if one.classes is not None]
    if maps:
        ignored = sum(int((one == look.ignored).sum()) for one in maps) / sum(one.size for one in maps)
        found[f'ignored pixels (label {look.ignored})'] = f'{ignored:.1%}'
    what = 'images' if not maps else 'images that have it'
    what = 'objects' if 'objects' in found else what
    found[f'classes seen, {what}'] = f'{len(counts)} of {len(look.names)}: ' + listed(Counter(
        {name_of(look, label): count for label, count in counts.items()}))
    return found


def labels_of(seen: Seen, look: Look) -> list[int]:
    """Return the class numbers in an image: of each object, each class of its pixels once, the mixed ones once."""
    if seen.weights is not None:
        return [int(label) for label in weighed(seen.weights)]
    if seen.classes is not None:
        return [int(label) for label in np.unique(seen.classes) if label != look.ignored]
    return [] if seen.labels is None else seen.labels.tolist()


def weighed(weights: np.ndarray) -> np.ndarray:
    """Return the classes that weigh more than smoothing gives to each, the heaviest first."""
    return np.argsort(-weights, kind='stable')[:(weights > weights.min() + 1e-6).sum()]


def name_of(look: Look, label: int) -> str:
    """Return the name of a class, or what is wrong with its number."""
    return str(look.names[label]) if 0 <= label < len(look.names) else f'{label}, which is no class'


def listed(counts: Counter) -> str:
    """Return names with their counts, the most frequent first."""
    shown = [f'{name} ({count})' for name, count in counts.most_common(MANY)]
    return ', '.join(shown + [f'{len(counts) - MANY} more'] * (len(counts) > MANY)) or 'none'


def rounded(values: Iterable[float] | None) -> str:
    """Return numbers as text."""
    return 'not normalised' if values is None else ', '.join(f'{value:g}' for value in np.round(list(values), 3))


def article(look: Look, seen: Seen) -> str:
    """Return one image: its original and the input, one of them with the truth, and what belongs to them."""
    base = seen.original if seen.of_file and seen.original is not None else seen.pixels
    with_truth = drawn_truth(base, seen, look)
    first = seen.original if base is seen.pixels else with_truth
    second = with_truth if base is seen.pixels else seen.pixels
    pair = [('file', first), ('input', second)]
    figures = ''.join(f'<figure>{picture_html(pixels, name)}<figcaption>{name}, {pixels.shape[1]} x {pixels.shape[0]}'
                      f'</figcaption></figure>\n' for name, pixels in pair if pixels is not None)
    return (f'<article>\n<h2>{text(PurePath(seen.name).name)}</h2>\n<p>{text(sentence(seen, look))}</p>\n'
            f'<div class="pair">\n{figures}</div>\n{legend(seen, look)}</article>\n')


def sentence(seen: Seen, look: Look) -> str:
    """Return what the truth of one image is."""
    if seen.weights is not None:
        weights = seen.weights
        rest = f'; {weights.min():.4f} for each other class' if weights.min() > 0 else ''
        return ' + '.join(f'{name_of(look, label)} {weights[label]:.3f}' for label in weighed(weights)) + rest
    if seen.classes is not None:
        return f'{len(labels_of(seen, look))} classes, {(seen.classes == look.ignored).mean():.1%} ignored'
    if seen.boxes is not None:
        return f'{len(seen.boxes)} objects: ' + listed(Counter(name_of(look, n) for n in seen.labels.tolist()))
    return 'no truth'


def drawn_truth(pixels: np.ndarray, seen: Seen, look: Look) -> np.ndarray:
    """Return pixels with boxes, masks and names, or with the colours of classes and stripes where none counts."""
    if seen.boxes is not None:
        names = [name_of(look, label) for label in seen.labels.tolist()]
        return with_objects(pixels, seen.boxes, seen.masks, names, colours_of(seen.labels, look))
    if seen.classes is None or seen.classes.shape != pixels.shape[:2]:
        return pixels
    picture = (pixels * (1 - ALPHA) + colours_of(seen.classes, look) * ALPHA).astype(np.uint8)
    rows, columns = np.indices(seen.classes.shape)
    stripes = np.where((rows + columns) // STRIPE % 2, 255, 0)[..., None].repeat(3, -1)
    return np.where((seen.classes == look.ignored)[..., None], stripes, picture).astype(np.uint8)


def colours_of(labels: np.ndarray, look: Look) -> np.ndarray:
    """Return the colours (..., 3) of class numbers; white for numbers without a class."""
    known = (labels >= 0) & (labels < len(look.palette))
    return np.vstack([look.palette, [[255] * 3]]).astype(np.uint8)[np.where(known, labels, len(look.palette))]


def legend(seen: Seen, look: Look) -> str:
    """Return the colours of the classes in a label map."""
    if seen.classes is None:
        return ''
    labels = np.array(labels_of(seen, look), int)
    entries = [('#' + bytes(colour.tolist()).hex(), name_of(look, label))
               for label, colour in zip(labels[:MANY].tolist(), colours_of(labels[:MANY], look), strict=True)]
    keys = ''.join(f'<span><svg width="12" height="12"><rect width="12" height="12" fill="{colour}"/></svg>'
                   f'{text(name)}</span>' for colour, name in entries)
    return f'<p class="key">{keys}<span>stripes: ignored</span></p>\n'


def picture_html(pixels: np.ndarray, alternative: str) -> str:
    """Return a picture as part of the page, as a PNG, which keeps every pixel."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, 'PNG')
    return png_html(content.getvalue(), alternative)
