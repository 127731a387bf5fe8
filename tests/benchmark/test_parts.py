"""Steps measured part by part, and what the host reads in them."""
import time

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope

from mmincubation.benchmark import host_syncs, parts
from mmincubation.check.batches import make_batch
from mmincubation.downstream import SimpleFeaturePyramid, ViTBackbone
from tests.downstream.test_backbone_in_mm import TINY, mask_rcnn, upernet

SIZE = (64, 96)


def make_step(scope: str) -> parts.Step:
    init_default_scope(scope)
    torch.manual_seed(0)
    model = (mask_rcnn if scope == 'mmdet' else upernet)().train()
    if scope == 'mmseg':
        model.data_preprocessor.size = SIZE
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))

    def batch() -> dict:
        torch.manual_seed(1)
        made = make_batch(scope, SIZE, 2)
        for sample in made['data_samples'] if scope == 'mmdet' else ():
            sample.gt_instances.bboxes = torch.rand(20, 2).repeat(1, 2) * 40 + torch.tensor([0, 0, 20, 20])
        return dict(made, inputs=list(torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)))

    return parts.Step(model, wrapper, batch)


@pytest.fixture(params=['mmdet', 'mmseg'])
def step(request):
    return make_step(request.param)


def test_a_measured_step_trains_as_any_other(step):
    twin = make_step('mmdet' if hasattr(step.model, 'rpn_head') else 'mmseg')
    twin.model.load_state_dict(step.model.state_dict())
    step()
    twin.model.train_step(twin.batch(), twin.wrapper)
    assert all(a.equal(b) for a, b in zip(step.model.state_dict().values(), twin.model.state_dict().values(),
                                          strict=True))
    assert all('forward' not in vars(module) for module in step.model.modules())


def test_parts_add_up(step):
    found = parts.measure(dict(one=step), runs=1)['one']
    seconds = {part: row['seconds'] for part, row in found.items()}
    backward = [value for part, value in seconds.items() if part.startswith('backward / ')]
    assert len(backward) == 3 and sum(backward) == pytest.approx(seconds['backward'], rel=.2)
    for part, value in seconds.items():
        assert 0 < value <= seconds.get(part.rpartition(' / ')[0], seconds['step'])
    whole = sum(value for part, value in seconds.items() if '/' not in part and part != 'step')
    assert .5 * seconds['step'] < whole < seconds['step']
    heads = {'roi head', 'rpn head', 'roi head / masks / targets'} if hasattr(step.model, 'rpn_head') else \
        {'decode head', 'auxiliary head'}
    assert heads | {'preprocessor', 'backbone', 'neck', 'optimiser'} <= set(found)


def test_memory_adds_up(step):
    found = parts.measure(dict(one=step), runs=1)['one']
    weights = sum(p.numel() * p.element_size() for p in step.model.parameters())
    assert found['step']['peak'] == max(row['peak'] for row in found.values())
    assert abs(found['step']['kept']) < 2**16 and found['optimiser']['kept'] == pytest.approx(-weights, rel=.05)
    assert found['backbone']['kept'] > 2 * 24 * 4 * 16 * 4 * 4  # at least each block's input


def test_time_and_memory_go_to_the_part_that_takes_them():
    step = make_step('mmdet')
    before, boxes, forward = parts.measure(dict(one=step), runs=1)['one'], step.model.roi_head.bbox_loss, \
        step.model.neck.levels[0].forward
    hidden = []

    def slow(*args):
        time.sleep(.3)
        return boxes(*args)

    def large(maps):
        hidden.append(torch.empty(2**21))
        return forward(maps)

    step.model.roi_head.bbox_loss, step.model.neck.levels[0].forward = slow, large
    after = parts.measure(dict(one=step), runs=1)['one']
    assert min(after[part]['seconds'] for part in ('roi head / boxes', 'roi head', 'step')) > .3
    assert after['neck']['kept'] - before['neck']['kept'] == pytest.approx(2**23, rel=.01)
    assert after['backbone']['kept'] == pytest.approx(before['backbone']['kept'], rel=.01)


def test_the_table_has_a_line_for_each_part(step):
    found = parts.measure(dict(one=step, two=step), runs=1)
    lines = parts.table(found).splitlines()
    assert len(lines) == 2 + len(found['one']) and {line.count('|') for line in lines} == {10}
    assert lines[0].count('peak MiB') == 2 and lines[-1].startswith('| step | ')


def test_steps_are_measured_in_turn():
    calls, step = [], make_step('mmseg')

    class Named(parts.Step):
        def __call__(self):
            calls.append(self.name)
            super().__call__()

    pair = {}
    for name in 'ab':
        pair[name] = Named(step.model, step.wrapper, step.batch)
        pair[name].name = name
    parts.measure(pair, runs=2)
    assert calls == [*'ab'] * 3 + [*'ab']


# --- reads

def test_what_counts_as_a_read():
    x = torch.tensor([1., 0, 2])
    for function, kind in ((lambda: x.sum().item(), 'number'), (lambda: bool(x.any()), 'number'),
                           (lambda: x[x > 0], 'mask'), (lambda: x.nonzero(), 'nonzero'), (lambda: x.cpu(), 'copy'),
                           (lambda: x.unique(), 'unique'), (lambda: x.masked_select(x > 0), 'mask'),
                           (lambda: x.clone().__setitem__(x > 0, x[:2]), 'mask')):
        assert [found for _, found in host_syncs.host_syncs(function)] == [kind]
    for function in (lambda: x + 1, lambda: x[torch.tensor([0, 2])], lambda: torch.where(x > 0, x, 0), lambda: x[1:],
                     lambda: x.clone().__setitem__(x > 0, 0.)):
        assert not host_syncs.host_syncs(function)


@pytest.mark.parametrize('options', [dict(window_size=3, global_blocks=(3, )), dict(cls_token=True),
                                     dict(window_size=3, with_cp=True, drop_path_rate=.5, bf16=True)])
def test_backbone_and_pyramid_read_nothing(options):
    model, neck = ViTBackbone(TINY, (3, ), **options).train(), SimpleFeaturePyramid(16, 8)
    assert not host_syncs.host_syncs(lambda: sum(x.sum() for x in neck(model(torch.randn(2, 3, 64, 80)))).backward())


def test_mask_rcnn_reads_where_mmdet_does():
    found = host_syncs.host_syncs(make_step('mmdet'))
    places = {place.split(':')[0] for place, _ in found}
    assert {'mmdet.structures.mask.mask_target', 'mmdet.models.task_modules.samplers.random_sampler'} <= places
    assert not any(place.startswith('mmincubation.downstream') for place in places)
    assert host_syncs.table(found).splitlines()[-1] == f'| all | | {found.total()} |'
