"""ViT-H fine-tuned at 392, from the incubated weights at 224.

Paper:    ImageNet-1K, ViT-H 392, Deep Incubation: top-1 85.6*
Run:      python tools/train.py configs/imagenet/vit_h_392_incub.py
          NNODES=2 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_392_incub.py 8
Batch:    512 = 16 GPUs x 32; AdamW, lr 5e-6; 30 epochs
Cost:     about 1,560 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/imagenet_384.py'
experiment = dict(task='classification', model='ViT-H-392', method='incub')
model = dict(
    type='mmincubation.ViTClassifier', arch=dict(name='vit_huge', img_size=392), drop_path_rate=0.6,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_h_incub/weights/finetune_last.safetensors'))
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=[dict(
    type='mmincubation.create_transform', input_size=392, is_training=True, interpolation='bicubic',
    auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4, normalize=False)]))
val_dataloader = dict(dataset=dict(pipeline=[dict(
    type='timm.data.create_transform', input_size=392, is_training=False, interpolation='bicubic', crop_pct=0.875,
    normalize=False)]))
test_dataloader = val_dataloader
