"""ADE20K's pipelines on odd sizes, sliding, and the multi-scale test: real transforms, real model parts."""
import pickle
import re
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import set_random_seed
from PIL import Image

from mmincubation.checkpoints import CheckpointError, read_tensors, write_tensors
from mmincubation.engine import launch
from mmincubation.models import Arch, VisionTransformer
from tests.helpers.forked import ranks
from tests.helpers.paths import ROOT
from tests.helpers.shrink import DEPTH, DIM, shrink
from tests.helpers.synthetic_ade import SIZES, write_ade
from tests.helpers.toy import arguments

RATIOS = (0.5, 0.75, 1, 1.25, 1.5, 1.75)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_ade(tmp_path_factory.mktemp('data') / 'ade/ADEChallengeData2016')


@pytest.fixture(autouse=True)
def scope():
    set_random_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


def released() -> Config:
    return Config.fromfile(ROOT / 'configs/ade20k/upernet_vit_b_incub.py')


def dataset(cfg, pipeline=None, root=None):
    cfg = cfg.copy()
    cfg.update(data_root=str(root or cfg.data_root), pipeline=pipeline or cfg.pipeline)
    return DATASETS.build(cfg)


def test_training_pipeline(root):
    """Crops of any size up to 512, padded in the model; 0 becomes 'ignore', classes begin at 0."""
    cfg, sizes, seen = released(), [], set()
    model = MODELS.build(cfg.model.data_preprocessor)
    data = dataset(cfg.train_dataloader.dataset, root=root)
    for _ in range(6):
        batch = model(pseudo_collate([data[0], data[1]]), training=True)
        assert batch['inputs'].shape == (2, 3, 512, 512)
        for sample in batch['data_samples']:
            sizes.append(tuple(sample.img_shape))
            labels = sample.gt_sem_seg.data
            seen |= set(labels.unique().tolist())
            assert labels.shape == (1, 512, 512)
            assert (labels[:, sample.img_shape[0]:] == 255).all() and (labels[..., sample.img_shape[1]:] == 255).all()
    assert min(s[0] for s in sizes) < 512 and max(s[0] for s in sizes) == 512
    assert {149, 255} <= seen <= {*range(150), 255}


def expected_size(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Short side 512 r unless the long side then exceeds 2048 r."""
    factor = min(512 * ratio / min(height, width), 2048 * ratio / max(height, width))
    return int(height * factor + 0.5), int(width * factor + 0.5)


def write_one(folder, height: int, width: int):
    """One picture and map of a size, read as the validation set."""
    rng = np.random.default_rng(0)
    for kind, suffix, shape, top in (('images', 'jpg', (height, width, 3), 256),
                                     ('annotations', 'png', (height, width), 151)):
        path = folder / kind / f'validation/one.{suffix}'
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, top, shape).astype(np.uint8)).save(path)
    return np.asarray(Image.open(path))


@pytest.mark.parametrize('height, width', [(511, 683), (301, 257), (61, 401)])
def test_multi_scale_pipeline(tmp_path, height, width):
    """Twelve views, the sizes of 2048 x 512 times each ratio whatever the image's, every second one flipped."""
    labels, cfg = write_one(tmp_path, height, width), released()
    views = dataset(cfg.test_dataloader.dataset, cfg.tta_pipeline, tmp_path)[0]
    sizes = [tuple(view.shape[-2:]) for view in views['inputs']]
    assert sizes == [expected_size(height, width, ratio) for ratio in RATIOS for _ in 'ab']
    samples = views['data_samples']
    assert [s.flip for s in samples] == [False, True] * 6
    for plain, flipped in zip(views['inputs'][::2], views['inputs'][1::2], strict=True):
        assert plain.flip(2).equal(flipped) and not plain.equal(flipped)
    for sample in samples:  # the truth is neither resized nor flipped
        assert sample.gt_sem_seg.data[0].numpy().astype(np.uint8).tolist() == (labels - np.uint8(1)).tolist()


def test_mmsegs_own_scales_are_of_the_original_image(tmp_path):
    """Why the config does not take them: at ratio 1 a 301 x 257 image would be seen at 301 x 257."""
    import mmseg
    write_one(tmp_path, 301, 257)
    stock = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs/_base_/datasets/ade20k.py')
    views = dataset(released().test_dataloader.dataset, stock.tta_pipeline, tmp_path)[0]
    assert tuple(views['inputs'][4].shape[-2:]) == (301, 257) != expected_size(301, 257, 1)


def segmentor(root, tta: bool, pixelwise: bool = False):
    """A shrunk config with its model in test mode; `pixelwise` replaces the network by a map of colours."""
    cfg = shrink(released(), root.parents[1])
    model = MODELS.build(dict(cfg.tta_model, module=cfg.model) if tta else cfg.model).eval()
    if pixelwise:
        weight = torch.randn(150, 3, 1, 1)
        (model.module if tta else model).encode_decode = lambda x, metas: torch.nn.functional.conv2d(x, weight)
    data = dataset(cfg.test_dataloader.dataset, cfg.tta_pipeline if tta else None, root)
    return cfg, model, data


@torch.no_grad()
def test_flips_are_undone_and_padding_is_removed(root):
    """With a network that looks at single pixels both views of a scale must agree at every pixel, on odd sizes."""
    _, model, data = segmentor(root, tta=True, pixelwise=True)
    for i, (height, width) in enumerate(SIZES):
        views = data[i]
        logits = [model.module.test_step(dict(inputs=[x], data_samples=[s]))[0].seg_logits.data
                  for x, s in zip(views['inputs'], views['data_samples'], strict=True)]
        assert all(view.shape == (150, height, width) for view in logits)
        for plain, flipped in zip(logits[::2], logits[1::2], strict=True):
            torch.testing.assert_close(plain, flipped, rtol=1e-4, atol=1e-4)
            assert not torch.allclose(plain, plain.flip(2), atol=1e-2)  # else a forgotten flip would pass


@torch.no_grad()
def test_multi_scale_averages_probabilities_of_slides(root):
    cfg, model, data = segmentor(root, tta=True)
    assert model.module.test_cfg == dict(mode='slide', crop_size=(64, 64), stride=(42, 42))
    merged = model.test_step(dict(inputs=[[x] for x in data[3]['inputs']],
                                  data_samples=[[s] for s in data[3]['data_samples']]))[0]
    single = [model.module.test_step(dict(inputs=[x], data_samples=[s]))[0].seg_logits.data.softmax(0)
              for x, s in zip(data[3]['inputs'], data[3]['data_samples'], strict=True)]
    assert len(single) == 12
    assert merged.pred_sem_seg.data[0].equal(torch.stack(single).sum(0).argmax(0))
    assert merged.gt_sem_seg.data.shape[-2:] == SIZES[3]


@torch.no_grad()
def test_sliding_averages_the_windows_that_see_a_pixel(root):
    """Against a plain loop: windows of 64 every 42 pixels, the last one flush with the border."""
    _, model, _ = segmentor(root, tta=False)
    images = torch.randn(1, 3, 64, 160)
    total, count, window = torch.zeros(1, 150, 64, 160), torch.zeros(160), [dict(img_shape=torch.Size((64, 64)))]
    for left in (0, 42, 84, 96):
        total[..., left:left + 64] += model.encode_decode(images[..., left:left + 64], window)
        count[left:left + 64] += 1
    torch.testing.assert_close(model.slide_inference(images, [{}]), total / count)


def test_test_images_are_padded_to_32(root):
    cfg, model, data = segmentor(root, tta=False)
    for i in range(len(data)):
        batch = model.data_preprocessor(pseudo_collate([data[i]]))
        height, width = data[i]['inputs'].shape[-2:]
        assert batch['inputs'].shape[-2:] == (-(-height // 32) * 32, -(-width // 32) * 32)


@pytest.fixture(scope='module')
def trained(root, tmp_path_factory):
    """A shrunk config on disk and its run of 40 iterations: enough for a model that is right somewhere."""
    folder = tmp_path_factory.mktemp('run')
    cfg = shrink(released(), root.parents[1])
    cfg.merge_from_dict(dict(
        train_cfg=dict(max_iters=40, val_interval=40), default_hooks=dict(checkpoint=dict(interval=40)),
        optim_wrapper=dict(optimizer=dict(lr=3e-3)), work_dir=str(folder / 'work'), log_level='WARNING'))
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
    cfg.dump(folder / 'short.py')
    assert launch.train(arguments(folder / 'short.py')) == 0
    return folder


def test_training_leaves_a_result_and_the_best_checkpoint(trained):
    result = mmengine.load(trained / 'work/result.json')
    assert result['metrics'].keys() == {'aAcc', 'mIoU', 'mAcc'} and result['metrics']['aAcc'] > 5
    assert result['images_seen'] == 80 and result['data']['val_size'] == 5
    assert (trained / 'work/iter_40.pth').exists() and list((trained / 'work').glob('best_mIoU_iter_40.pth'))


def accuracy(samples) -> float:
    """aAcc in percent, counted here."""
    right = total = 0
    for sample in samples:
        prediction, truth = (sample[key]['data'].squeeze() for key in ('pred_sem_seg', 'gt_sem_seg'))
        known = truth != 255
        right, total = right + (prediction == truth)[known].sum().item(), total + known.sum().item()
    return 100 * right / total


def predictions(trained, name: str, **options) -> list:
    path = trained / f'{name}.pkl'
    assert launch.test(arguments(trained / 'short.py', checkpoint=str(trained / 'work/iter_40.pth'),
                                 work_dir=str(trained / name), out=str(path), **options)) == 0
    return pickle.loads(path.read_bytes())


def test_single_scale_reproduces_the_validation(trained):
    aacc = mmengine.load(trained / 'work/result.json')['metrics']['aAcc']
    slides = predictions(trained, 'slide')
    assert accuracy(slides) == pytest.approx(aacc, abs=0.006)  # the metric rounds
    whole = predictions(trained, 'whole', cfg_options=['model.test_cfg.mode=whole'])
    assert any(not a['seg_logits']['data'].equal(b['seg_logits']['data']) for a, b in zip(slides, whole, strict=True))


def test_multi_scale_on_two_ranks_counts_each_image_once(trained):
    """Five images on two ranks: the sampler repeats one, the metric must drop it."""
    alone = predictions(trained, 'tta', tta=True)
    both = ranks(trained, 2, trained / 'short.py', trained / 'work/iter_40.pth', '--tta', '--out', trained / 'two.pkl',
                 '--work-dir', trained / 'two', '--cfg-options', 'log_level=INFO', tool='test')
    assert [run.code() for run in both] == [0, 0], both[0].text()[-3000:]
    two = pickle.loads((trained / 'two.pkl').read_bytes())
    assert len(alone) == len(two) == 5
    assert all(a['pred_sem_seg']['data'].equal(b['pred_sem_seg']['data']) for a, b in zip(alone, two, strict=True))
    printed = float(re.search(r'aAcc: ([\d.]+)', both[0].text())[1])
    assert printed == pytest.approx(accuracy(alone), abs=0.006)
    assert abs(accuracy([*alone, alone[0]]) - accuracy(alone)) > 0.02  # a repeated image would show


def shrunk_vit_h(root, weights, **changes) -> Config:
    """The ViT-H config in small, from a file of a ViT with patch 14 on a grid of 16 x 16, as Deep Incubation's."""
    cfg = shrink(Config.fromfile(ROOT / 'configs/ade20k/upernet_vit_h_incub.py'), root.parents[1])
    cfg.model.backbone.arch.img_size = 256  # the config's own
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(weights))
    arch = Arch.parse(dict(name='vit_huge', embed_dim=DIM, num_heads=2, depth=DEPTH) | changes)
    write_tensors(weights, VisionTransformer(arch).state_dict(), dict(kind='vit', arch=arch.to_dict()))
    return cfg


def test_vit_h_goes_from_patch_14_to_16(root, tmp_path):
    """The kernel is fitted, the position embedding kept as it is, the report says so; it trains and predicts."""
    cfg = shrunk_vit_h(root, tmp_path / 'vit.safetensors')
    model = MODELS.build(cfg.model)
    model.init_weights()
    coverage = model.backbone.load_report['coverage']
    assert 'PI-resized from 14x14 to 16x16' in coverage and 'pos_embed' not in coverage
    data = dataset(cfg.train_dataloader.dataset, root=root)
    losses = model(**model.data_preprocessor(pseudo_collate([data[0], data[1]]), training=True), mode='loss')
    model.parse_losses(losses)[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []  # which DDP would refuse
    assert model.eval().test_step(pseudo_collate([dataset(cfg.test_dataloader.dataset, root=root)[1]]))
    file = read_tensors(tmp_path / 'vit.safetensors')[0]
    assert model.backbone.pos_embed.equal(file['pos_embed'])
    # PI-resize: an enlarged patch gives what the small one gave (an interpolated kernel is 29-32 % off).
    small = torch.rand(1, 3, 14, 14)
    large = torch.nn.functional.interpolate(small, 16, mode='bicubic', antialias=True)
    old = torch.nn.functional.conv2d(small, file['patch_embed.proj.weight'])
    new = torch.nn.functional.conv2d(large, model.backbone.patch_embed.proj.weight)
    assert (new - old).norm() / old.norm() < 0.05


def test_vit_h_refuses_a_file_with_qkv_bias(root, tmp_path):
    cfg = shrunk_vit_h(root, tmp_path / 'vit.safetensors', qkv_bias=True)
    with pytest.raises(CheckpointError, match='qkv'):
        MODELS.build(cfg.model).init_weights()
