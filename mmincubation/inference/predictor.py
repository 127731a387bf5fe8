"""Load a trained classifier, detector or segmentor, and predict for one image after the other."""
from copy import deepcopy
from os import PathLike

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner.amp import autocast
from torch import nn

from mmincubation.checkpoints import read_tensors
from mmincubation.config.auto_arch import asking, settle_archs
from mmincubation.config.classes import class_counts, count_problems, data_sets, training_names
from mmincubation.config.load import load_config
from mmincubation.datasets.classes import Names, names_in, names_of
from mmincubation.engine.loading import load_for_test, mended
from mmincubation.engine.named_errors import said
from mmincubation.errors import ConfigError, naming
from mmincubation.models.classifier import BaseClassifier
from mmincubation.vit import arch_of

from .preparing import ClassifierInput, PackedInput, path_of
from .results import colours, plain

LESS_MEMORY = 'Give a smaller image, or parts of it'


class Predictor:
    """A trained model in eval mode, with the transforms of its test data and the names of its classes.

    `model` is the network, `names` are the names of its classes in the order of their numbers, `palette` their colours
    (classes, 3) uint8 in RGB, `coverage` says in one line what was loaded.
    """

    def __init__(self, model: nn.Module, names: Names, palette: np.ndarray, prepare: ClassifierInput | PackedInput,
                 coverage: str, fp16: bool = False):
        self.model, self.names, self.palette, self.coverage = model.eval(), names, palette, coverage
        self._prepare, self._fp16 = prepare, fp16

    def read(self, path: str | PathLike) -> np.ndarray:
        """Return the pixels (H, W, 3) uint8, in RGB order, that boxes and maps of a file's prediction are about.

        Raises:
            ConfigError: the file cannot be read.
        """
        with naming(str(path)):
            return self._prepare.read(path_of(path))

    @torch.no_grad()
    def predict(self, image):
        """Return what the model predicts for an image, or a list of that for a list of images, one after the other.

        An image is a path, a PIL image, or an array (H, W, 3) uint8 in RGB order. All arrays of a result are numpy's.
        A classifier returns `label`, `name` and `scores`, probabilities by class name, the highest first. A detector
        returns `boxes` (N, 4) as x1, y1, x2, y2 in pixels of the image, `scores` (N,), `labels` (N,), `names` and, if
        it predicts masks, `masks` (N, H, W) bool. A segmentor returns `classes` (H, W), the class number of each
        pixel, and `names`, those of all classes.

        Raises:
            ConfigError: the image cannot be read, is no image, or the model fails on it; memory may run out.
        """
        if isinstance(image, list | tuple):
            return [self.predict(one) for one in image]
        data = self._prepare(image)
        try:
            with autocast(enabled=self._fp16):
                [output] = self.model.test_step(data)
            return plain(output, self.names)
        except ConfigError:
            raise
        except Exception as error:  # of other people's code
            place = image if isinstance(image, str | PathLike) else 'the image'
            raise ConfigError(f'{place}: {said(error, LESS_MEMORY)}') from error


def load_model(config: str | PathLike | Config, checkpoint: str | PathLike, device: str | torch.device = 'cpu'
               ) -> Predictor:
    """Load a model for prediction: what `tools/test.py CONFIG CHECKPOINT` would test, without the data.

    The checkpoint is one of a run (with EMA: its averaged weights), a published model, or, for a classifier, weights
    of a ViT. It is read as data: nothing in it is executed. Images pass the transforms of `test_dataloader`. Class
    names are the checkpoint's, or else the config's.

    Raises:
        ConfigError: the config has no model or test data, or other classes than the checkpoint; or there is no such
            device.
        CheckpointError: the checkpoint cannot be read, or does not fit the model.
    """
    cfg, device = config if isinstance(config, Config) else load_config(config), _device(device)
    if missing := [key for key in ('model', 'test_dataloader') if not isinstance(cfg.get(key), dict)]:
        raise ConfigError(f'{cfg.filename}: it has no {", ".join(missing)}, which a prediction needs')
    if asking(cfg):
        settle_archs(cfg := deepcopy(cfg), checkpoint)
    content, header = read_tensors(checkpoint)
    names = _names(cfg, content, header, str(checkpoint))
    model = _built(cfg)
    coverage = load_for_test(model, str(checkpoint), content, cfg)
    fp16 = bool((cfg.get('test_cfg') or {}).get('fp16'))
    palette = colours(_palette(cfg, content, header), len(names))
    return Predictor(model.to(device), names, palette, _preparing(cfg, model), coverage, fp16)


def _device(name: str | torch.device) -> torch.device:
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f'device {str(name)!r}: {str(error).splitlines()[0]}') from error


def _built(cfg: Config) -> nn.Module:
    """Return the model with random weights; its `init_cfg` is not read."""
    settings = dict(cfg.model)
    if cfg.get('data_preprocessor'):  # the Runner's other place for it
        settings.setdefault('data_preprocessor', cfg.data_preprocessor)
    with naming('model'), DefaultScope.overwrite_default_scope(_scope(cfg)):
        return mended(MODELS.build(settings))


def _preparing(cfg: Config, model: nn.Module) -> ClassifierInput | PackedInput:
    found = next(data_sets(cfg, 'test'), None)
    if found is None:
        raise ConfigError('test_dataloader.dataset: no data set that reads files; its transforms prepare the images')
    place, dataset = found
    with naming(f'{place}.pipeline'), DefaultScope.overwrite_default_scope(_scope(cfg)):
        steps = dataset.get('pipeline') or []
        if isinstance(model, BaseClassifier):
            return ClassifierInput(steps, getattr(arch_of(model), 'img_size', None))
        return PackedInput(steps)


def _names(cfg: Config, content: dict, header: dict, source: str) -> Names:
    scope, names = _scope(cfg), names_in(content, header)
    known = (names, source) if names else training_names(cfg)
    known = known or next(((found, place) for place, dataset in data_sets(cfg, 'test')
                           if (found := names_of(dataset, scope))), None)
    if known is None:  # weights alone, and no data at hand
        count = next((count for _, count in class_counts(cfg.model, scope)), 0)
        return tuple(map(str, range(count)))
    if problems := [*count_problems(cfg, *known, scope)]:
        raise ConfigError('\n'.join(problems))
    return known[0]


def _palette(cfg: Config, content: dict, header: dict):
    """Return what the checkpoint, or else the config, says of the colours of classes; None without any."""
    meta = content.get('meta') if isinstance(content.get('meta'), dict) else {}
    places = [meta.get('dataset_meta'), header, *(dataset.get('metainfo') for _, dataset in data_sets(cfg, 'test'))]
    return next((place['palette'] for place in places if isinstance(place, dict) and place.get('palette')), None)


def _scope(cfg: Config) -> str:
    return cfg.get('default_scope') or 'mmengine'
