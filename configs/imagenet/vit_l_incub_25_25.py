"""ViT-L on ImageNet-1K at 224, Deep Incubation with 25 epochs a module and 25 of fine-tuning.

Paper:    Training budgets, ViT-L, 25 + 25 epochs: top-1 79.8*
Run:      python tools/train.py configs/imagenet/vit_l_incub_25_25.py
          tools/dist_train.sh configs/imagenet/vit_l_incub_25_25.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 25, finetune 25
Cost:     ~340 A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-L', method='incub_25_25')
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4)
train_cfg = dict(phases=dict(
    module=dict(epochs=25, param_scheduler=[  # the warm-up keeps its share of a fifth (ours)
        dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=5),
        dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=5)]),
    finetune=dict(epochs=25, drop_path_rate=0.5)))
