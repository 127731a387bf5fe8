"""ViT-B on ImageNet-1K at 224, Deep Incubation with the start `grow` (ours).

Paper:    no row; beside vit_b_incub
Run:      python tools/train.py configs/imagenet/vit_b_incub_grow.py
          tools/dist_train.sh configs/imagenet/vit_b_incub_grow.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 100, finetune 100
Cost:     about 339 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + module 4 x 100 x 6 + finetune 100 x 12 = 4,800 block-forwards an image, as vit_b_incub
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-B', method='incub_grow')
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_base'), modules=4)
train_cfg = dict(start='grow', phases=dict(finetune=dict(drop_path_rate=0.1)))
