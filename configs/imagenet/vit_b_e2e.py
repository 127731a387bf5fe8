"""ViT-B on ImageNet-1K at 224, trained end to end: the control.

Paper: ImageNet-1K, ViT-B 224, E2E: top-1 81.8*
Run: python tools/train.py configs/imagenet/vit_b_e2e.py
     tools/dist_train.sh configs/imagenet/vit_b_e2e.py 8
Hardware: 8 GPUs x 256
Cost: about 311 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result: not run
"""
_base_ = [
    '../_base_/imagenet/data_224.py',
    '../_base_/imagenet/schedule.py',
    '../_base_/classification.py',
]
experiment = dict(task='classification', model='ViT-B', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier', arch=dict(name='vit_base'), drop_path_rate=0.1,
    data_preprocessor={{_base_.data_preprocessor}})
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
