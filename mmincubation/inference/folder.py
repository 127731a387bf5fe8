"""Predict for all images of a folder: what tools/predict.py does."""
import io
import json
import os
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from mmincubation.errors import CheckpointError, ConfigError, clean

from .out_folder import OutFolder
from .pictures import drawn
from .predictor import Predictor, load_model

TOP = 5  # classes of an image in a classifier's predictions.json
WRITTEN = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')  # kinds of pictures that are written; of others PNG
LOGGED = 30  # seconds between two lines of progress where nobody watches a terminal


def main(args: Namespace) -> int:
    """Run the command of tools/predict.py; return 0, 1 if something was skipped, 2 after one line on stderr."""
    out = args.out or Path('work_dirs') / Path(args.config).stem / 'predictions'
    try:
        images, others = find_images(args.images, out, told=args.out is not None)
        skipped = predict_all(load_model(args.config, args.checkpoint, args.device), args.images, images, out)
    except (ConfigError, CheckpointError) as error:
        print('\n'.join(f'error: {clean(line)}' for line in str(error).splitlines()), file=sys.stderr)
        return 2
    if others:
        print(f'skipped: {len(others)} files whose names are none of images, first {clean(others[0])}', file=sys.stderr)
    print(f'{len(images) - skipped} images predicted, see {out}' + f'; {skipped} skipped' * bool(skipped))
    return int(bool(skipped or others))


def find_images(source: Path, out: Path, told: bool) -> tuple[list[str], list[str]]:
    """Return the images of a folder and its other files, paths with `/` below it in order; or the one image `source`.

    Hidden files and all below `out` are left out. Links to folders elsewhere are followed; each folder is read once.
    Unless the user has `told` so, `out` may not lie in the folder.

    Raises:
        ConfigError: there are no images, or `out` lies there.
    """
    if source.is_file():
        return [source.name], []
    root, target, found = source.resolve(), out.resolve(), []
    if target == root or not told and target.is_relative_to(root):
        raise ConfigError(f'{out} lies in the folder of the images; give another --out')
    seen = {root, target}
    for folder, names, files in os.walk(root, followlinks=True):
        names[:] = [n for n in sorted(names) if not n.startswith('.') and _is_new(Path(folder, n), root, seen)]
        found += [Path(folder, name).relative_to(root).as_posix() for name in files if not name.startswith('.')]
    images = sorted(name for name in found if name.lower().endswith(IMG_EXTENSIONS))
    if not images:
        raise ConfigError(f'{source}: ' + (f'holds no images ({", ".join(IMG_EXTENSIONS)})' if source.is_dir() else
                                           'does not exist'))
    return images, sorted(set(found) - set(images))


def _is_new(folder: Path, root: Path, seen: set[Path]) -> bool:
    """Return whether a folder is to be read, then add it to `seen`; a link to a folder of `root` itself is not."""
    real = folder.resolve()
    new = real not in seen and not (folder.is_symlink() and real.is_relative_to(root))
    if new:
        seen.add(real)
    return new


def predict_all(model: Predictor, source: Path, images: list[str], out: Path) -> int:
    """Predict for images below `source`, write everything to `out`, and return how many images were skipped.

    A skipped image is a line on stderr.

    Raises:
        ConfigError: `out` holds files of others.
    """
    root, skipped, rows, target = source if source.is_dir() else source.parent, 0, [], None
    pictures, masks = _picture_names(images), _mask_names(images)
    progress = tqdm(images, unit=' images', mininterval=0.1 if sys.stderr.isatty() else LOGGED, file=sys.stderr)
    for number, name in enumerate(progress, 1):
        try:
            result, pixels = model.predict(root / name), model.read(root / name)
        except ConfigError as error:
            tqdm.write(f'skipped: {clean(str(error))}', file=sys.stderr)
            skipped += 1
            continue
        target = target or OutFolder(out, _all_names(pictures, masks if 'classes' in result else {}))
        picture = Image.fromarray(drawn(pixels, result, model.palette))
        target.write(pictures[name], _encoded(picture, pictures[name]))
        if 'classes' in result:
            target.write(masks[name], _encoded(label_picture(result['classes'], model.palette), 'mask.png'))
        else:
            rows += _rows(number, name, result)
    if target:
        _write_lists(target, model, rows)
    return skipped


def _all_names(pictures: dict[str, str], masks: dict[str, str]) -> list[str]:
    names = [*pictures.values(), *masks.values(), 'classes.txt'] + ['predictions.json'] * (not masks)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f'two images would become {twice[0]}; rename one of them')
    return names


def _picture_names(images: list[str]) -> dict[str, str]:
    return {name: f'pictures/{name}' + '.png' * (not name.lower().endswith(WRITTEN)) for name in images}


def _mask_names(images: list[str]) -> dict[str, str]:
    """Return `masks/image.png` for each image.jpg, and `masks/image.jpg.png` where an image.png would collide."""
    stems = {name: str(PurePosixPath(name).with_suffix('')) for name in images}
    counts = Counter(stems.values())
    return {name: f'masks/{stem if counts[stem] == 1 else name}.png' for name, stem in stems.items()}


def _rows(number: int, name: str, result: dict) -> list[dict]:
    """Return the entries of predictions.json for one image: COCO's results of a detector, one row of a classifier."""
    if 'boxes' not in result:
        scores = dict(list(result['scores'].items())[:TOP])
        return [dict(file_name=name, label=result['label'], name=result['name'],
                     scores={key: round(value, 6) for key, value in scores.items()})]
    sizes = result['boxes'] - np.pad(result['boxes'][:, :2], ((0, 0), (2, 0)))  # x, y, width, height
    rows = [dict(image_id=number, file_name=name, category_id=int(label), category_name=category,
                 bbox=[round(value, 3) for value in box], score=round(score, 6))
            for label, category, box, score in zip(result['labels'], result['names'], sizes.tolist(),
                                                   result['scores'].tolist(), strict=True)]
    if 'masks' in result and rows:
        for row, rle in zip(rows, mask_utils.encode(np.asfortranarray(result['masks'].transpose(1, 2, 0), np.uint8)),
                            strict=True):
            row['segmentation'] = dict(size=list(rle['size']), counts=rle['counts'].decode())
    return rows


def label_picture(classes: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Return class numbers (H, W) as a picture whose values they are, shown in the palette's colours up to 256."""
    if len(palette) > 256:
        return Image.fromarray(classes.astype(np.uint16))
    image = Image.fromarray(classes.astype(np.uint8))
    image.putpalette(palette.tobytes())
    return image


def _encoded(image: Image.Image, name: str) -> bytes:
    content = io.BytesIO()
    kind = Image.registered_extensions()[PurePosixPath(name).suffix.lower()]
    image.save(content, kind, **dict(quality=95) if kind in ('JPEG', 'WEBP') else {})
    return content.getvalue()


def _write_lists(target: OutFolder, model: Predictor, rows: list[dict]) -> None:
    target.write('classes.txt', ''.join(f'{clean(name)}\n' for name in model.names).encode())
    if 'predictions.json' in target.names:
        text = ',\n'.join(json.dumps(row) for row in rows)
        target.write('predictions.json', f'[\n{text}\n]\n'.encode())
    target.finish()
