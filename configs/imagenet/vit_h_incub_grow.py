"""ViT-H on ImageNet-1K at 224, Deep Incubation with the start `grow` (ours).

Paper:    no row; beside vit_h_incub
Run:      python tools/train.py configs/imagenet/vit_h_incub_grow.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_incub_grow.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; epochs: meta 300, module 4 x 100, finetune 100
Cost:     about 2,720 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + module 4 x 100 x 11 + finetune 100 x 32 = 8,800 block-forwards an image, as vit_h_incub
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-H', method='incub_grow')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_huge'), modules=4)
train_cfg = dict(start='grow', phases=dict(finetune=dict(drop_path_rate=0.6)))
