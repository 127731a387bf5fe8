"""ViT-H fine-tuned at 392, from the E2E weights at 224.

Paper: ImageNet-1K, ViT-H 392, E2E: top-1 83.4*
Run: python tools/train.py configs/imagenet/vit_h_392_e2e.py
     NNODES=2 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_392_e2e.py 8
Hardware: 16 GPUs x 32
Cost: about 1,560 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result: not run
"""
_base_ = [
    '../_base_/imagenet/data_392.py',
    '../_base_/imagenet/highres.py',
    '../_base_/classification.py',
]
experiment = dict(task='classification', model='ViT-H-392', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier', arch=dict(name='vit_huge', img_size=392), drop_path_rate=0.6,
    data_preprocessor={{_base_.data_preprocessor}},
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_h_e2e/weights/e2e_last.safetensors'))
