"""Every incubation has its controls, at its cost: the configs of E2E, growth and the meta model alone."""
import re
from math import prod

import pytest
from mmengine.config import Config

from mmincubation.config.models import division_of
from mmincubation.incubation.phases import block_forwards, read_phases
from mmincubation.models import Arch
from tests.configs.test_configs import header
from tests.helpers.paths import ROOT

METHODS = ('e2e', 'incub', 'incub_grow', 'grow_only', 'meta_only', 'stack_only')
FAMILIES = ['demo/vit_demo', 'imagenet/vit_b', 'imagenet/vit_l', 'imagenet/vit_h', 'cifar100/deit_t_32',
            'cifar100/deit_t_128']
SUM = re.compile(r'^(?:Cost:)? +(.+) = (\d+) block-forwards an image', re.MULTILINE)


def load(family: str, method: str) -> Config:
    return Config.fromfile(ROOT / f'configs/{family}_{method}.py')


def block_forwards_of(cfg: Config) -> int:
    """Block-forwards an image of the training set, summed over the epochs of all phases."""
    if 'phases' not in cfg.train_cfg:
        return Arch.parse(cfg.model.arch).depth * cfg.train_cfg.max_epochs
    division = division_of(cfg.model)
    return sum(phase.epochs * block_forwards(division, phase)
               for phase in read_phases(cfg.train_cfg.phases, len(division)))


def stated_cost(text: str) -> int:
    """The block-forwards an image that a header states; its terms make up their sum."""
    terms, total = SUM.search(text.replace(',', '')).groups()
    products = [prod(map(int, re.findall(r'\d+', term))) for term in terms.split('+')]
    assert sum(products) == int(total)
    return int(total)


@pytest.mark.parametrize('family', FAMILIES)
def test_every_incubation_has_its_companions_at_its_cost(family):
    """In whole epochs. E2E of the paper has the paper's 300 epochs, whatever they cost."""
    costs = {method: block_forwards_of(load(family, method)) for method in METHODS}
    if not family.startswith('demo/'):
        costs.pop('e2e')
    assert all(cost == pytest.approx(costs['incub'], rel=.002) for cost in costs.values()), costs
    if family in ('demo/vit_demo', 'imagenet/vit_b', 'imagenet/vit_l'):
        assert len(set(costs.values())) == 1, costs
    assert set(METHODS) <= {load(family, method).experiment.method for method in METHODS}


# The paper's E2E and incub state their GPU hours.
@pytest.mark.parametrize('family, method', [
    (family, method) for family in FAMILIES for method in METHODS
    if family == 'demo/vit_demo' or method not in ('e2e', 'incub')])
def test_the_header_states_the_cost(family, method):
    cfg, text = load(family, method), header(ROOT / f'configs/{family}_{method}.py')
    cost, target = block_forwards_of(cfg), block_forwards_of(load(family, 'incub'))
    assert stated_cost(text) == cost
    if family != 'demo/vit_demo':
        stem = family.split('/')[1]
        assert (f'as {stem}_incub' if cost == target else f'{stem}_incub has {target:,}') in text


@pytest.mark.parametrize('family', FAMILIES)
def test_controls_differ_from_the_incubation_in_what_they_control_alone(family):
    incub = load(family, 'incub').to_dict()
    for method in METHODS[1:]:
        cfg = load(family, method).to_dict()
        differ = {key for key in cfg.keys() | incub.keys() if cfg.get(key) != incub.get(key)} - {'experiment'}
        assert cfg['experiment'] == dict(incub['experiment'], method=method)
        if method == 'meta_only':
            assert differ == {'model', 'train_cfg'} and cfg['train_cfg']['type'] == 'EpochBasedTrainLoop'
            assert not cfg['model'].get('drop_path_rate')  # the meta phase's
            continue
        assert differ <= {'train_cfg'}
        loop, theirs = cfg['train_cfg'], incub['train_cfg']
        assert loop.pop('start', 'random') == dict(
            incub='random', incub_grow='grow', grow_only='grow', stack_only='stack')[method]
        theirs = dict(theirs, phases={name: dict(phase) for name, phase in theirs['phases'].items()})
        theirs.pop('start', None)
        if method.endswith('_only'):
            for name in ('module', 'finetune'):
                epochs = loop['phases'][name].pop('epochs')
                assert (epochs > theirs['phases'][name].pop('epochs')) == (name == 'finetune')
        assert loop == theirs


def test_the_documentation_has_their_costs():
    pages = [(ROOT / f'docs/tasks/{page}.md').read_text() for page in ('imagenet', 'trainings')]
    for family in FAMILIES[1:]:
        grown, meta, incub = (load(family, method) for method in ('grow_only', 'meta_only', 'incub'))
        row = [block_forwards_of(incub), grown.train_cfg.phases.finetune.epochs, block_forwards_of(grown),
               meta.train_cfg.max_epochs]
        assert f'| {grown.experiment.model} | {" | ".join(f"{n:,}" for n in row)} |' in pages[0]
    for size in 'blh':
        hours = [re.search(r'about ([\d,]+) A100', header(ROOT / f'configs/imagenet/vit_{size}_{method}.py'))[1]
                 for method in ('incub_grow', 'grow_only', 'stack_only', 'meta_only')]
        assert f'| ViT-{size.upper()} | {" | ".join(hours)} | not run |' in pages[1]
