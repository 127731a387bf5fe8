"""Which learning rate is E2E's best on Tiny-ImageNet-32, on a tenth of the training images that is held out?"""
work_dir = 'work_dirs/study/tiny_lr'
results = 'results/study/tiny_lr'
_dataset = 'dataloader.dataset.'
runs = [
    dict(name=f'e2e_{lr}', config='studies/configs/tiny_e2e.py', seconds=800, options={
        'optim_wrapper.optimizer.lr': lr, 'experiment.data': 'Tiny-ImageNet-32, a tenth held out',
        f'train_{_dataset}fraction': .9,
        f'val_{_dataset}root': 'data/tiny_imagenet_32/train', f'val_{_dataset}fraction': (.9, 1)})
    for lr in (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)]
