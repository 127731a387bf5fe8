"""ViT-L on ImageNet-1K at 224, Deep Incubation with 50 epochs a module and 50 of fine-tuning.

Paper:    Training budgets, ViT-L, 50 + 50 epochs: top-1 82.7*
Run:      python tools/train.py configs/imagenet/vit_l_incub_50_50.py
          tools/dist_train.sh configs/imagenet/vit_l_incub_50_50.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 50, finetune 50
Cost:     ~520 A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-L', method='incub_50_50')
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4)
train_cfg = dict(phases=dict(
    module=dict(epochs=50, param_scheduler=[  # the warm-up keeps its share of a fifth (ours)
        dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=10),
        dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=10)]),
    finetune=dict(epochs=50, drop_path_rate=0.5)))
