"""How the processes of a run find each other, by each launcher."""
import os
import subprocess

import pytest
import torch
from mmengine.config import Config

from mmincubation.engine.ranks import init_process_group, rank_and_ranks
from mmincubation.errors import ConfigError
from tests.helpers.paths import ROOT

MPI = dict(OMPI_COMM_WORLD_RANK='5', OMPI_COMM_WORLD_SIZE='8', OMPI_COMM_WORLD_LOCAL_RANK='1')
ALONE = ['--rdzv_backend=c10d', '--rdzv_endpoint=127.0.0.1:0', '--local_addr=127.0.0.1']


@pytest.fixture
def environment(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', *MPI):
        monkeypatch.setenv(name, '')  # so that it is as it was after the test
        monkeypatch.delenv(name)
    return monkeypatch


def test_mpi_says_the_rank_on_the_machine_as_torchrun_does(environment):
    for name, value in MPI.items():
        environment.setenv(name, value)
    assert rank_and_ranks('mpi') == (5, 8) and os.environ['LOCAL_RANK'] == '1'


@pytest.mark.parametrize('launcher, given, missing', [
    ('mpi', dict(MPI, OMPI_COMM_WORLD_LOCAL_RANK=None), 'OMPI_COMM_WORLD_LOCAL_RANK'),
    ('pytorch', dict(RANK='0', WORLD_SIZE='2'), 'LOCAL_RANK'), ('pytorch', {}, 'RANK')])
def test_what_a_launcher_has_not_set_is_named(environment, launcher, given, missing):
    for name, value in given.items():
        if value:
            environment.setenv(name, value)
    with pytest.raises(ConfigError, match=f'--launcher {launcher}: {missing} is not set; start through'):
        rank_and_ranks(launcher)


def test_mpi_needs_the_address_of_the_first_machine(environment):
    environment.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(ConfigError, match='MASTER_ADDR is not set; give mpirun -x MASTER_ADDR='):
        init_process_group('mpi', Config(dict()))
    environment.setenv('MASTER_ADDR', 'n1')
    assert init_process_group('mpi', Config(dict(env_cfg=dict(dist_cfg=dict(timeout=7))))) == 7


@pytest.mark.parametrize('env, train, test', [
    ({}, ALONE, ALONE), (dict(MASTER_ADDR='n1', NNODES='1'), ALONE, ALONE),
    (dict(PORT='29611'), ['--rdzv_endpoint=127.0.0.1:29611', '--rdzv_id=29611', '--local_addr=127.0.0.1'],
     ['--master_addr=127.0.0.1', '--master_port=29611']),
    (dict(NNODES='2', MASTER_ADDR='n1'), ['--nnodes=2', '--rdzv_endpoint=n1:29500', '--rdzv_id=29500'],
     ['--nnodes=2', '--master_addr=n1', '--master_port=29500']),
    (dict(NNODES='2', MASTER_ADDR='n1', PORT='1', NODE_RANK='1'), ['--rdzv_endpoint=n1:1', '--rdzv_id=1'],
     ['--node_rank=1', '--master_addr=n1', '--master_port=1'])])
def test_two_commands_on_one_machine_do_not_meet(tmp_path, env, train, test):
    """On one machine torchrun takes a free port; several machines must know one. `python` is a stand-in."""
    (tmp_path / 'python').write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'python').chmod(0o755)
    outer = {name: value for name, value in os.environ.items() if name not in ('PORT', 'NNODES', 'MASTER_ADDR')}
    for script, args, expected in (('dist_train.sh', ['c.py', '2'], train), ('dist_test.sh', ['c.py', 'w', '2'], test)):
        said = subprocess.run([ROOT / 'tools' / script, *args], capture_output=True, text=True, check=True,
                              env=outer | dict(PATH=f'{tmp_path}:{os.environ["PATH"]}') | env).stdout.splitlines()
        assert set(expected) <= set(said) and '--nproc_per_node=2' in said
        assert ('--local_addr=127.0.0.1' in said) == ('--local_addr=127.0.0.1' in expected)
