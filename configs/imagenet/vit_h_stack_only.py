"""ViT-H on ImageNet-1K at 224, each meta block copied to its module, without incubation: a control.

Paper:    no row; a control of vit_h_incub
Run:      python tools/train.py configs/imagenet/vit_h_stack_only.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_stack_only.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; epochs: meta 300, module 4 x 0, finetune 238
Cost:     about 4,399 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + finetune 238 x 32 = 8,816 block-forwards an image, vit_h_incub has 8,800
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-H', method='stack_only')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_huge'), modules=4)
train_cfg = dict(start='stack', phases=dict(module=dict(epochs=0), finetune=dict(epochs=238, drop_path_rate=0.6)))
