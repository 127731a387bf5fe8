"""Training and prediction of any config on the fake GPU, with the hooks of a run that touch tensors."""
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import METRICS
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmincubation.check.batches import input_size, loads_polygons, make_batch
from mmincubation.check.memory import make_wrapper
from mmincubation.config.load import load_config
from mmincubation.config.rehearsal import training_phases
from mmincubation.engine.loading import mended
from mmincubation.hooks.ema import EMAHook
from mmincubation.hooks.runtime_info import RuntimeInfoHook, wrappers_of
from mmincubation.incubation.loop import training_step
from mmincubation.incubation.model import IncubationModel
from mmincubation.incubation.phase_run import begin_runs, one_by_one
from mmincubation.incubation.phases import FINETUNE, Phase, incubated_modules
from mmincubation.incubation.weights import PhaseWeights
from mmincubation.inference.predictor import Predictor
from mmincubation.models.on_meta import build_on_meta
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.resumable.protocol import LoopProtocol
from mmincubation.vit import Arch
from tests.helpers.fake_gpu import fake_gpu, on_gpu
from tests.helpers.paths import ROOT

DECIDE = ('model', 'optim_wrapper', 'train_cfg', 'val_evaluator', 'custom_hooks', 'default_scope')
BLOCKS = 8  # of a dense model: with and without windows
NAMES = tuple(map(str, range(1000)))


def like(node, key: str = ''):
    """A part of a config as far as it may decide devices: of numbers only the sign counts, of files nothing."""
    if key == 'arch':
        node = Arch.parse(node if isinstance(node, str) else dict(node)).to_dict()
    if isinstance(node, dict):
        hybrids = str(node.get('type')).endswith('IncubationModel')  # of the blocks of the end-to-end configs
        return {name: like(value, name) for name, value in sorted(node.items()) if not (hybrids and name == 'arch')}
    if isinstance(node, list | tuple):
        return [like(value) for value in node]
    if isinstance(node, int | float) and not isinstance(node, bool):
        return (node > 0) - (node < 0)
    return 'file' if key == 'checkpoint' else node


def groups() -> dict[str, list[str]]:
    """All configs; those that are alike under the name of the first."""
    found = {}
    for path in sorted((ROOT / 'configs').glob('[!_]*/*.py')):
        cfg = load_config(path)
        found.setdefault(json.dumps([like(cfg.get(key)) for key in DECIDE]), []).append(
            f'{path.parent.name}/{path.stem}')
    return {names[0]: names for names in found.values()}


def short(cfg: Config) -> Config:
    """A config with few blocks, which are alike: two of a classifier, one a module, `BLOCKS` of a dense model."""
    owner = cfg.model.get('backbone') or cfg.model
    if 'arch' in owner:
        full = Arch.parse(owner.arch if isinstance(owner.arch, str) else owner.arch.to_dict())
        modules = cfg.model.get('modules', 4 if cfg.model.type.endswith('IncubationModel') else 2)
        depth = BLOCKS if owner is not cfg.model else modules
        owner.arch = full.to_dict() | dict(depth=depth)
        for key in ('out_indices', 'global_blocks'):
            if key in owner:
                owner[key] = tuple((i + 1) * depth // full.depth - 1 for i in owner[key])
    if cfg.default_scope == 'mmdet':
        cfg.model.test_cfg.rpn.max_per_img = 20  # times the classes: as many boxes would be kept
    return cfg


class Run:
    """A model on the fake GPU, with what a Runner and its hooks have at hand."""
    steps = 1  # in each phase

    def __init__(self, cfg: Config, model: nn.Module, found: Counter):
        self.cfg, self.model = cfg, model.to_empty(device='cuda').train()
        self._found, self.syncs = found, {}
        for module in self.model.modules():
            if isinstance(module, BaseDataPreprocessor):
                module._non_blocking, module._device = True, torch.device('cuda')  # as ToolRunner, and Module.to
        self.hooks = [RuntimeInfoHook(), FiniteGuard(), EMAHook()]
        self.iter, self.max_iters, self.train_loop, self.val_loop = 0, 100, None, None
        self.train_dataloader = Loader()
        self.message_hub = SimpleNamespace(update_scalar=lambda *args: None, update_info=lambda *args: None)
        self.ema.before_run(self)
        assert not self.ema.ema_model._buffers.pop('steps').is_cuda
        self.ema.ema_model.steps = 0  # that of a fake tensor is not known
        self.hooks[1].before_train(self)

    @property
    def ema(self) -> EMAHook:
        return self.hooks[-1]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the syncs inside to `syncs[name]`, as text."""
        before = Counter(self._found)
        yield
        self.syncs.setdefault(name, set()).update(f'{who}: {kind}' for who, kind in self._found - before)

    def train(self) -> None:
        """Take `steps` in each phase, or in a run without phases; average the weights twice in each."""
        for phase in training_phases(self.cfg):
            self._train_loop = LoopProtocol()
            self._train_loop.phase_name = phase and phase.name
            with self.stage('begin'):
                step = self._whole() if phase is None else self._phase(phase)
            with self.stage('step'), patch.object(OptimWrapper, 'backward', by_hand):
                for _ in range(self.steps):
                    for hook in self.hooks:
                        hook.before_train_iter(self, 0)
                    losses = step()
                    for hook in [*self.hooks, self.ema]:
                        hook.after_train_iter(self, 0, self.batch(), losses)
            self.check(losses)
            with self.stage('log'):
                for hook in self.hooks[:2]:
                    hook.settle(self)
            with self.stage('swap'):
                self.ema.before_val_epoch(self)
                self.ema.after_val_epoch(self)

    def _whole(self) -> Callable[[], dict]:
        self.optim_wrapper = make_wrapper(self.cfg.optim_wrapper, self.model)
        return lambda: self.model.train_step(self.batch(), self.optim_wrapper)

    def _phase(self, phase: Phase) -> Callable[[], dict]:
        loop, phases = self.cfg.train_cfg, training_phases(self.cfg)
        weights = PhaseWeights(self.model, Path(), loop.get('start', 'random'), None, incubated_modules(phases))
        with patch('mmincubation.incubation.weights.write_tensors'):  # of which there are none
            weights.prepare(phase)
        runs = begin_runs(self.model, phase.subphases or [phase], loop.get('recipe', 'clean'),
                          side_by_side=bool(phase.subphases))
        for run in one_by_one(runs):
            run.wrapper = make_wrapper(run.optim_cfg(self.cfg.optim_wrapper), self.model)
        self.optim_wrapper = OptimWrapperDict(**{run.name: run.wrapper for run in runs}) if phase.subphases \
            else runs[0].wrapper
        return lambda: training_step(self.model, runs, self.batch())

    def batch(self) -> dict:
        """Two (classifiers: four) images in uint8 and what belongs to them, on the host, as a loader gives them."""
        cfg, size = self.cfg, input_size(self.cfg.model, self.cfg.train_dataloader)
        if cfg.default_scope == 'mmengine':
            return dict(inputs=torch.zeros(4, 3, *size, dtype=torch.uint8), labels=torch.zeros(4, dtype=torch.long),
                        index=torch.arange(4))
        with patch('mmincubation.check.batches.BOXES', 2):
            batch = make_batch(cfg.default_scope, size, 2, loads_polygons(cfg.train_dataloader))
        for i, sample in enumerate(batch['data_samples']):
            sample.set_metainfo(dict(img_id=i, img_path=f'{i}.jpg'))
        return batch | dict(inputs=[torch.zeros(3, *size, dtype=torch.uint8) for _ in range(2)])

    def check(self, losses: dict[str, Tensor]) -> None:
        """What a step leaves behind is where it belongs."""
        assert_on_gpu(losses)
        assert_on_gpu(dict(self.model.named_buffers()))
        for name, parameter in self.model.named_parameters():
            resident = not isinstance(self.model, IncubationModel) or self.model.is_resident(name)
            assert parameter.is_cuda == resident, f'{name} is on {parameter.device}'
        for wrapper in wrappers_of(self.optim_wrapper):
            assert wrapper.optimizer.state
            for state in wrapper.optimizer.state.values():
                assert_on_gpu(state)
        if self._train_loop.phase_name in (None, FINETUNE):
            averages = dict(self.ema.ema_model.module.named_parameters())
            for name, own in self.model.named_parameters():
                assert averages[name].device == own.device, f'the average of {name} is on {averages[name].device}'

    def predict(self) -> None:
        """Predict a batch, give it to the metric of validation, which keeps nothing on the device, and to the tool."""
        self.model.eval()
        batch = self.batch()
        with torch.no_grad(), self.stage('predict'):
            predicted = self.model.val_step(batch)
        metric = self._metric()
        with self.stage('metric'):
            metric.process(batch, [one.to_dict() if hasattr(one, 'to_dict') else one for one in predicted])
        assert metric.results and not any(map(on_gpu, tree_leaves(metric.results)))
        with self.stage('tool'), patch.object(self.model, 'test_step', lambda data: predicted[:1]):  # for time
            Predictor(self.model, NAMES, None, str, '').predict('an image')

    def _metric(self) -> BaseMetric:
        settings = self.cfg.val_evaluator
        metric = METRICS.build(dict(settings, ann_file=None) if 'ann_file' in settings else dict(settings))
        metric._coco_api = ()  # of the file, which is not there
        metric.dataset_meta = dict(classes=NAMES[:150])
        return metric


class Loader:
    """A data loader, as far as hooks look at it."""
    dataset = SimpleNamespace(name=str, labels=range(1 << 30))

    def __len__(self) -> int:
        return 100


def by_hand(wrapper: OptimWrapper, loss: Tensor, **kwargs) -> None:
    """In the place of the backward pass, which needs a GPU that is there: a gradient for each parameter."""
    assert loss.is_cuda and loss.requires_grad
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            parameter.grad = torch.empty_like(parameter)
    wrapper._inner_count += 1


def assert_on_gpu(tensors: dict) -> None:
    for name, value in tensors.items():
        assert not isinstance(value, Tensor) or value.is_cuda, f'{name} is on {value.device}'


@contextmanager
def running(cfg: Config) -> Iterator[Run]:
    """A run on the fake GPU."""
    model = mended(build_on_meta(cfg))
    with fake_gpu() as found:
        yield Run(cfg, model, found)
