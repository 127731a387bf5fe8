"""ViT-H on ImageNet-1K at 224, Deep Incubation with 25 epochs a module and 25 of fine-tuning.

Paper:    Training budgets, ViT-H, 25 + 25 epochs: top-1 80.5*
Run:      python tools/train.py configs/imagenet/vit_h_incub_25_25.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_incub_25_25.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; epochs: meta 300, module 4 x 25, finetune 25
Cost:     ~0.88K A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-H', method='incub_25_25')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_huge'), modules=4)
train_cfg = dict(phases=dict(
    module=dict(epochs=25, param_scheduler=[  # the warm-up keeps its share of a fifth (ours)
        dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=5),
        dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=5)]),
    finetune=dict(epochs=25, drop_path_rate=0.6)))
