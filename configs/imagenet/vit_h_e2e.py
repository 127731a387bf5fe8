"""ViT-H on ImageNet-1K at 224, trained end to end: the control.

Paper:    ImageNet-1K, ViT-H 224, E2E: top-1 81.6*
Run:      python tools/train.py configs/imagenet/vit_h_e2e.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_e2e.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; 300 epochs
Cost:     4.79K A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-H', method='e2e')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_huge'), drop_path_rate=0.5)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
