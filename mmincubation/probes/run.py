"""tools/probe.py: measure the features of one weight file, and write a result for each probe."""
import hashlib
import json
import re
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.device import get_device
from torch import Tensor

from mmincubation.checkpoints.pixels import IMAGENET, Pixels, stated_pixels
from mmincubation.datasets.classification import ClsDataset
from mmincubation.errors import CheckpointError, ConfigError, clean
from mmincubation.models import ClsDataPreprocessor
from mmincubation.provenance import content_digest
from mmincubation.result import ResultError, write_result

from .arguments import probe_options, require_apart
from .features import FeatureViT, extract, feature_vit, image_set
from .fit import HELD_OUT, INVERSE_PENALTIES, NEIGHBOURS, TEMPERATURE, knn, linear_probe
from .result import Names, make_result, names_of

FEATURES = dict(token='class token after the last norm', avg='mean of the patch tokens after the last norm')


def main(args: Namespace) -> int:
    """Print what was measured; return 0, or 2 after one line on stderr."""
    try:
        probe(args)
    except (CheckpointError, ConfigError, ResultError, OSError) as error:
        print(f'error: {printable(str(error))}', file=sys.stderr)
        return 2
    return 0


def probe(args: Namespace) -> None:
    """Extract the features of both sets once, run each of `args.probes` on them, and write the results."""
    require_apart(args.train, args.val)
    vit = feature_vit(args.weights, dict(args.arch), args.pool, args.prefix)
    names, size, columns = chosen_names(args, vit), vit.arch.img_size, tuple(args.columns)
    train = image_set(args.train, size, args.crop_pct, columns, args.fraction)
    val = image_set(args.val, size, args.crop_pct, columns, classes=train.classes)
    if content_digest(train) == content_digest(val):
        raise ConfigError(f'{args.train} and {args.val} hold the same images: each would be its own neighbour; give '
                          'other images for one of them')
    said = settle_pixels(args, stated_pixels(args.weights))
    print(printable(f'{args.weights}: {vit.load_report["coverage"]}; mean={args.mean}, std={args.std}, {said}'))
    features = recipe_of_features(args, vit)
    out = Path(args.out or default_folder(names, vit, (train, val), features))
    begun = time.monotonic()
    found = features_of(args, vit, train, val)
    extracted = time.monotonic() - begun
    for name in dict.fromkeys(args.probes):
        begun = time.monotonic()
        task, own, metrics, note = PROBES[name](*found, names.seed)
        seconds = extracted + time.monotonic() - begun
        path = out / name / 'result.json'
        result = make_result(task, names, vit, (train, val), own | features, metrics, seconds, note)
        result['experiment'] |= dict(data=data_name(args))
        result |= dict(options=probe_options(args))
        write_result(path, result)
        said = ', '.join(f'{key} {value:.6g}' for key, value in metrics.items())
        print(printable(f'{names.model}, {names.method}: {said}; {seconds:.0f} s; {path}' + f' ({note})' * bool(note)))


def settle_pixels(args: Namespace, stated: Pixels | None) -> str:
    """Set mean and std, where not given, to those that the weights state, else to ImageNet's; return who says them."""
    mean, std = (stated.mean, stated.std) if stated else IMAGENET
    given = args.mean is not None and args.std is not None
    args.mean, args.std = (list(usual) if own is None else own for own, usual in ((args.mean, mean), (args.std, std)))
    return 'as given' if given else f'as {stated.source} says' if stated else "ImageNet's: the file does not say them"


def features_of(args: Namespace, vit: FeatureViT, train: ClsDataset, val: ClsDataset) -> list[Tensor]:
    """Return features and labels of the training images, then those of the validation images."""
    preprocess = ClsDataPreprocessor(args.mean, args.std).to(get_device())
    vit.to(get_device())
    return [tensor for name, images in (('train', train), ('val', val))
            for tensor in extract(vit, images, preprocess, args.workers, name)]


def default_folder(names: Names, vit: FeatureViT, sets: tuple[ClsDataset, ClsDataset], features: dict) -> str:
    """Return a folder of these weights, data and settings: another probe must not replace its results."""
    settings = json.dumps([features, *map(content_digest, sets), names.seed, names.model])
    parts = (names.method, str(vit.load_report['sha256'])[:8], data_folder(sets[0].root),
             hashlib.sha256(settings.encode()).hexdigest()[:6])
    return f'work_dirs/probes/{"_".join(map(file_name, parts))}'


def data_name(args: Namespace) -> str:
    """Return the name of the data in the tables, with the share of the training images."""
    share = f', {100 * args.fraction:g} %' if args.fraction < 1 else ''
    return (args.data or data_folder(args.train)) + share


def chosen_names(args: Namespace, vit: FeatureViT) -> Names:
    """Return the names of the row: those of the command, else of the weights."""
    given = {key: value for key in ('method', 'model', 'seed') if (value := getattr(args, key)) is not None}
    return replace(names_of(args.weights, vit.load_report['sha256'], vit.arch), **given)


def recipe_of_features(args: Namespace, vit: FeatureViT) -> dict:
    """Return what decides the features, beside weights and images."""
    return dict(feature=FEATURES[vit.pool], img_size=vit.arch.img_size, patch_size=vit.arch.patch_size,
                crop_pct=args.crop_pct, interpolation='bicubic', mean=args.mean, std=args.std,
                precision='bfloat16' if torch.cuda.is_available() else 'float32')


def neighbours(features: Tensor, labels: Tensor, val: Tensor, val_labels: Tensor, _seed: int) -> tuple:
    """Return task, recipe, metrics and note of k-NN."""
    device = get_device()
    found = knn(features.to(device), labels.to(device), val.to(device)).cpu()
    return ('knn', dict(k=NEIGHBOURS, temperature=TEMPERATURE),
            {'knn/top1': 100 * (found == val_labels).float().mean().item()}, '')


def linear(features: Tensor, labels: Tensor, val: Tensor, val_labels: Tensor, seed: int) -> tuple:
    """Return task, recipe, metrics and note of the linear probe."""
    fitted = linear_probe(features.numpy(), labels.numpy(), seed)
    top1 = 100 * (fitted(val.numpy()) == val_labels.numpy()).mean()
    metrics = {'linear_probe/top1': float(top1), 'linear_probe/held_out_top1': float(fitted.held_out_top1),
               'linear_probe/C': fitted.c}
    return ('linear probe', dict(C=INVERSE_PENALTIES, held_out=HELD_OUT, solver='lbfgs, standardised features'),
            metrics, fitted.warning)


PROBES = dict(knn=neighbours, linear=linear)


def data_folder(root: str) -> str:
    """Return the name of a data set's folder, without that of its split."""
    parts = [part for part in Path(root).absolute().parts if part not in ('train', 'training')]
    return parts[-1]


def printable(text: str) -> str:
    """Return a text, of which files may have given a part, on one line without control characters."""
    return clean(' '.join(text.split()))


def file_name(text: str) -> str:
    """Return a text as the name of a folder."""
    return re.sub(r'[^\w.-]+', '_', text).strip('._') or 'vit'
