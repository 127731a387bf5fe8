"""Which learning rate is E2E's best, on a tenth of the training digits that is held out?"""
work_dir = 'work_dirs/study/digits_lr'
results = 'results/study/digits_lr'
_dataset = 'dataloader.dataset.'
runs = [
    dict(name=f'e2e_{lr}', config='studies/configs/digits_e2e.py', seconds=200, options={
        'optim_wrapper.optimizer.lr': lr, 'experiment.data': 'digits, a tenth held out',
        f'train_{_dataset}fraction': .9,
        f'val_{_dataset}root': 'data/demo/cls/train', f'val_{_dataset}fraction': (.9, 1)})
    for lr in (1e-3, 2e-3, 4e-3)]
