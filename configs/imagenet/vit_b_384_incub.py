"""ViT-B fine-tuned at 384, from the incubated weights at 224.

Paper:    ImageNet-1K, ViT-B 384, Deep Incubation: top-1 84.2*
Run:      python tools/train.py configs/imagenet/vit_b_384_incub.py
          tools/dist_train.sh configs/imagenet/vit_b_384_incub.py 8
Batch:    512 = 8 GPUs x 64; AdamW, lr 5e-6; 30 epochs
Cost:     about 98 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/imagenet_384.py'
experiment = dict(task='classification', model='ViT-B-384', method='incub')
model = dict(
    type='mmincubation.ViTClassifier', arch=dict(name='vit_base', img_size=384), drop_path_rate=0.1,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_b_incub/weights/finetune_last.safetensors'))
