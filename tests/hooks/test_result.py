"""What hooks add to result.json."""
from mmincubation.result import read_result
from mmincubation.resumable.protocol import BaseHook
from tests.hooks.test_cost import make_runner


class Adds(BaseHook):
    """A user's hook that says more of a run."""

    def add_to_result(self, runner, result, folders):
        result['metrics']['mine'] = 1.0
        result['unknown'] = 2
        assert folders == [runner.work_dir]


def test_a_hook_adds_to_the_result_and_its_mistake_costs_nothing(tmp_path):
    runner, said = make_runner(tmp_path), []
    runner.register_hook(Adds())
    runner.logger.warning = said.append
    runner.train()
    result = read_result(tmp_path / 'result.json')
    assert result['metrics']['mine'] == 1.0 and 'unknown' not in result
    assert any('leaves out what it has no key for: unknown; a hook may set the keys' in line for line in said)
