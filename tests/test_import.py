"""`import mmincubation` is cheap and makes mmcv.ops, mmdet and mmseg import and run; a compiled `mmcv._ext` wins."""
import subprocess
import sys
import textwrap

import mmincubation
from mmincubation.compat import ext_finder


def run(code, *args):
    """Standard output of `code` in a fresh interpreter, where nothing was imported before."""
    command = [sys.executable, '-c', textwrap.dedent(code), *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_is_cheap_and_brings_no_torch():
    code = """
        import sys, time
        start, before = time.process_time(), set(sys.modules)
        import mmincubation
        print(time.process_time() - start)
        print(*{name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
    """
    seconds, *packages = min(run(code) for _ in range(3))
    assert float(seconds) < 0.2 and packages == ['mmincubation']


def test_the_finder_is_installed_once_and_last():
    ext_finder.install()
    ours = [f for f in sys.meta_path if isinstance(f, ext_finder.MmcvExtFinder)]
    assert len(ours) == 1
    assert ours[0].find_spec('mmcv._ext', None).origin == str(ext_finder.EXT_FILE)
    assert ours[0].find_spec('mmcv._other', None) is None and ours[0].find_spec('_ext', None) is None
    assert mmincubation.__version__ == '0.1.0'
    order = run('import sys, mmincubation; print(type(sys.meta_path[-1]).__name__)')
    assert order == ['MmcvExtFinder']


def test_a_compiled_ext_wins(tmp_path):
    (tmp_path / '_ext.py').write_text('def __getattr__(name):\n    return lambda *a, **k: "compiled " + name\n')
    code = """
        import sys, mmincubation, mmcv
        mmcv.__path__.append(sys.argv[1])
        import mmcv.ops, mmcv._ext
        print(mmcv._ext.__file__, mmcv.ops.get_compiler_version())
    """
    assert run(code, tmp_path) == [str(tmp_path / '_ext.py'), 'compiled', 'get_compiler_version']


def test_without_us_mmcv_ops_does_not_import():
    """The bridge is what does it: the day mmcv-lite ships its ops, this test says that it can go."""
    assert run("""
        try:
            import mmcv.ops
        except ModuleNotFoundError as error:
            print(error.name)
    """) == ['mmcv._ext']


EVERYTHING = """
    import mmincubation
    import warnings
    warnings.simplefilter('error', FutureWarning)
    import mmcv.ops
    from mmdet.utils import register_all_modules as mmdet_all
    from mmseg.utils import register_all_modules as mmseg_all
    mmdet_all()
    mmseg_all(init_default_scope=False)
    from mmdet.registry import MODELS
    from mmseg.registry import MODELS as SEGMENTORS
    print(all(name in MODELS.module_dict for name in ('MaskRCNN', 'SingleRoIExtractor', 'DeformableDETR')))
    print(all(name in SEGMENTORS.module_dict for name in ('EncoderDecoder', 'UPerHead', 'PSAHead')))
"""

MASK_RCNN = """
    import torch
    from mmengine import Config
    from mmengine.structures import InstanceData
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    torch.manual_seed(0)
    loss, smooth = dict(type='CrossEntropyLoss'), dict(type='L1Loss')
    coder = dict(type='DeltaXYWHBBoxCoder')
    roi = lambda size: dict(type='SingleRoIExtractor', out_channels=8, featmap_strides=[4, 8, 16, 32],
                            roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0))
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.5, min_pos_iou=.3)
    sampler = dict(type='RandomSampler', num=32, pos_fraction=.5)
    rpn = dict(nms_pre=100, max_per_img=50, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0)
    config = Config(dict(model=dict(
        type='MaskRCNN', data_preprocessor=dict(type='DetDataPreprocessor', pad_mask=True, pad_size_divisor=32),
        backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=4, norm_cfg=dict(type='BN')),
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5),
        rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8, bbox_coder=coder, loss_bbox=smooth,
                      loss_cls=dict(loss, use_sigmoid=True),
                      anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[.5, 1., 2.],
                                            strides=[4, 8, 16, 32, 64])),
        roi_head=dict(
            type='StandardRoIHead', bbox_roi_extractor=roi(7), mask_roi_extractor=roi(14),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=8, fc_out_channels=16, num_classes=2,
                           bbox_coder=coder, loss_cls=loss, loss_bbox=smooth),
            mask_head=dict(type='FCNMaskHead', num_convs=1, in_channels=8, conv_out_channels=8, num_classes=2,
                           loss_mask=dict(loss, use_mask=True))),
        train_cfg=dict(rpn=dict(assigner=assigner, sampler=dict(sampler, add_gt_as_proposals=False),
                                allowed_border=-1, pos_weight=-1),
                       rpn_proposal=rpn,
                       rcnn=dict(assigner=assigner, sampler=dict(sampler, add_gt_as_proposals=True),
                                 mask_size=28, pos_weight=-1)),
        test_cfg=dict(rpn=rpn, rcnn=dict(score_thr=0., nms=dict(type='nms', iou_threshold=.5), max_per_img=5,
                                         mask_thr_binary=.5)))))
    model = MODELS.build(config.model)
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 5:30, 5:40] = masks[1, 30:60, 20:50] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1., 1.)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5., 5, 40, 30], [20, 30, 50, 60]]), labels=torch.tensor([0, 1]),
        masks=BitmapMasks(masks.numpy(), 64, 64))
    data = dict(inputs=[torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)], data_samples=[sample])
    total, log = model.parse_losses(model(**model.data_preprocessor(data, True), mode='loss'))
    total.backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    model.eval()
    pred = model.test_step(data)[0].pred_instances
    print(bool(total.isfinite()), len(missing), log['loss_mask'].item() > 0, len(pred), *pred.masks.shape[1:])
"""


def test_all_of_mmdet_and_mmseg_import_and_a_stock_mask_rcnn_trains_and_predicts():
    assert run(EVERYTHING + MASK_RCNN) == ['True', 'True'] + ['True', '0', 'True', '5', '64', '64']
