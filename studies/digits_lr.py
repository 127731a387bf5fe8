"""Which learning rate is E2E's best, on a tenth of the training digits that is held out?"""
work_dir = 'work_dirs/study/digits_lr'
results = 'results/study/digits_lr'
_dataset = 'dataloader.dataset.'
runs = [
    dict(name=f'd{depth}_e2e_{lr}', config='studies/configs/digits_e2e.py', seconds=300, options={
        'optim_wrapper.optimizer.lr': lr, 'experiment.data': 'digits, a tenth held out',
        'experiment.model': f'ViT-{depth} w16', 'model.arch.depth': depth, 'train_cfg.max_epochs': 1080 // depth,
        f'train_{_dataset}fraction': .9,
        f'val_{_dataset}root': 'data/demo/cls/train', f'val_{_dataset}fraction': (.9, 1)})
    for depth, rates in ((12, (1e-3, 2e-3, 4e-3, 8e-3)), (24, (1e-3, 2e-3, 4e-3, 8e-3, 16e-3))) for lr in rates]
