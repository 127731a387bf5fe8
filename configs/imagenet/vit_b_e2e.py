"""ViT-B on ImageNet-1K at 224, trained end to end: the control.

Paper:    ImageNet-1K, ViT-B 224, E2E: top-1 81.8*
Run:      python tools/train.py configs/imagenet/vit_b_e2e.py
          tools/dist_train.sh configs/imagenet/vit_b_e2e.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; 300 epochs
Cost:     about 311 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-B', method='e2e')
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_base'), drop_path_rate=0.1)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
