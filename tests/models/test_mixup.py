"""Erasing and mixup inside the training step: timm's, drawn from (seed, epoch, rank), never in evaluation."""
import copy
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy

from mmincubation.incubation import IncubationModel
from mmincubation.models import ViTClassifier
from mmincubation.models.classifier import ClsDataPreprocessor
from tests.helpers.toy import ARCH, begin_phase, e2e_config, incubation_config
from tests.incubation.test_loop import run, same, weights

ERASING = dict(probability=0.5, mode='pixel')
MIXUP = dict(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=3)
AUGMENTED = dict(
    type='mmincubation.ClsDataPreprocessor', erasing=dict(type='timm.data.random_erasing.RandomErasing', **ERASING),
    mixup=dict(type='timm.data.Mixup', **MIXUP))


def batch(count: int = 8) -> dict:
    generator = torch.Generator().manual_seed(0)
    return dict(inputs=torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator),
                labels=torch.arange(count) % 3)


def seed(value: int = 0) -> None:
    random.seed(value), np.random.seed(value), torch.manual_seed(value)


def preprocessor() -> ClsDataPreprocessor:
    return ViTClassifier(ARCH, data_preprocessor=copy.deepcopy(AUGMENTED)).data_preprocessor


def test_training_batches_are_timms_and_evaluation_is_untouched():
    ours, plain, data = preprocessor(), ClsDataPreprocessor(), batch()
    kinds = set()
    for value in range(12):
        seed(value)
        found = ours(data, training=True)
        seed(value)
        erased = RandomErasing(**ERASING, device='cpu')(plain(data)['inputs'])
        expected, targets = Mixup(**MIXUP)(erased, data['labels'])
        assert torch.equal(found['inputs'], expected) and torch.equal(found['labels'], targets)
        assert targets.shape == (8, 3) and torch.allclose(targets.sum(1), torch.ones(8))
        kinds.add(bool((found['inputs'] == plain(data)['inputs']).any()))
    assert kinds == {True, False}  # cutmix keeps pixels, mixup none: both were drawn
    seed()
    state = np.random.get_state()[2]
    found = ours(data)
    assert torch.equal(found['inputs'], plain(data)['inputs']) and torch.equal(found['labels'], data['labels'])
    assert np.random.get_state()[2] == state


def test_an_odd_batch_is_named():
    with pytest.raises(ValueError, match='pairs the images of a batch, 7 are odd: give .*batch_size and drop_last'):
        preprocessor()(batch(7), training=True)


def models():
    yield 'e2e', ViTClassifier(ARCH, data_preprocessor=copy.deepcopy(AUGMENTED))
    for phase in ('meta', 'module_0', 'module_1', 'finetune'):
        model = IncubationModel(ARCH, 2, copy.deepcopy(AUGMENTED))
        begin_phase(model, phase)
        yield phase, model


def test_every_phase_trains_on_the_soft_targets_and_predicts_on_the_images():
    for name, model in models():
        seed()
        data = model.data_preprocessor(batch(), True)
        expected = SoftTargetCrossEntropy()(model.logits(data['inputs']), data['labels'])
        seed()
        loss = model._run_forward(model.data_preprocessor(batch(), True), mode='loss')['loss']
        assert torch.allclose(loss, expected, rtol=1e-6), name
        seed(1)
        first = model.eval().val_step(batch())
        seed(2)
        second = model.val_step(batch())
        assert [int(s['label']) for s in first] == batch()['labels'].tolist()
        assert all(torch.equal(a['scores'], b['scores']) for a, b in zip(first, second, strict=True)), name


def augmented(cfg, work_dir):
    """The whole recipe on a toy: RandAugment, repeated augmentation, workers, erasing, mixup, drop path."""
    cfg.model.data_preprocessor = copy.deepcopy(AUGMENTED)
    cfg.train_dataloader.update(num_workers=2, drop_last=True)
    cfg.train_dataloader.sampler = dict(type='mmincubation.RepeatAugSampler')
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='torchvision.transforms.RandomCrop', size=8, padding=2),
        dict(type='timm.data.auto_augment.rand_augment_transform', config_str='rand-m9-mstd0.5-inc1', hparams={})]
    cfg.work_dir = str(work_dir)
    return cfg


def test_two_runs_end_in_the_same_weights(images, tmp_path):
    for name in ('a', 'b'):
        run(augmented(incubation_config(images, tmp_path / name, drop_path_rate=0.2), tmp_path / name))
    for phase in ('meta', 'module_0', 'module_1', 'finetune'):
        assert same(weights(tmp_path / 'a', f'{phase}_last'), weights(tmp_path / 'b', f'{phase}_last')), phase


def close(runner) -> None:
    """End persistent workers now; the garbage collector would wait five seconds for each."""
    runner.train_dataloader._iterator._shutdown_workers()


def test_a_resumed_run_with_persistent_workers_draws_the_same(images, tmp_path):
    class Killed(Exception):
        pass

    def config(name):
        cfg = augmented(e2e_config(images, tmp_path / name, 3, 0.2, experiment_name=name), tmp_path / name)
        cfg.train_dataloader.persistent_workers = True
        return cfg

    close(run(config('whole')))
    runner = Runner.from_cfg(config('cut'))

    def kill(runner, **_):
        if runner.epoch == 2:
            raise Killed

    runner._hooks[-1].before_train_epoch = kill
    with pytest.raises(Killed):
        runner.train()
    close(runner)
    close(run(Config(dict(config('cut'), resume=True))))
    assert same(weights(tmp_path / 'whole', 'e2e_last'), weights(tmp_path / 'cut', 'e2e_last'))


def test_one_random_module_still_equals_e2e(images, tmp_path):
    """The module phases draw as an E2E run of the same seed does."""
    run(augmented(e2e_config(images, tmp_path / 'e2e'), tmp_path / 'e2e'))
    run(augmented(incubation_config(images, tmp_path / 'one', (0, 2, 0), 1), tmp_path / 'one'))
    assert same(weights(tmp_path / 'e2e', 'e2e_last'), weights(tmp_path / 'one', 'module_0_last'))
