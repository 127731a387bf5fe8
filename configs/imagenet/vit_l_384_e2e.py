"""ViT-L fine-tuned at 384, from the E2E weights at 224.

Paper:    ImageNet-1K, ViT-L 384, E2E: top-1 83.3*
Run:      python tools/train.py configs/imagenet/vit_l_384_e2e.py
          tools/dist_train.sh configs/imagenet/vit_l_384_e2e.py 8
Batch:    512 = 8 GPUs x 64; AdamW, lr 5e-6; 30 epochs
Cost:     about 338 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/imagenet_384.py'
experiment = dict(task='classification', model='ViT-L-384', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier', arch=dict(name='vit_large', img_size=384), drop_path_rate=0.5,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_l_e2e/weights/e2e_last.safetensors'))
