"""The plots show every validation at its cost, and no name in them covers another."""
import io
from itertools import combinations

from matplotlib.text import Text
from PIL import Image

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.plot import cost_figure, curves, plot_costs, spots
from mmincubation.leaderboard.rows import merge_seeds
from tests.helpers.boards import METHODS, put_method, put_suite
from tests.helpers.results import phase, put


def rows_of(folder, task='classification'):
    return [row for row in merge_seeds(collect([folder])[0]) if row.task == task]


def texts(figure) -> dict[str, list]:
    """The boxes of all texts that a figure shows, by text."""
    figure.draw_without_rendering()
    axes, found = figure.axes[0], {}
    unseen = [tick.label1 for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
              for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible()):
        if text.get_text().strip() and text not in unseen:
            found.setdefault(text.get_text().strip(), []).append(text.get_window_extent())
    return found


def require_apart(figure) -> None:
    """Every text is inside the figure and touches no other."""
    boxes = [(name, box) for name, own in texts(figure).items() for box in own]
    assert not [(a, b) for (a, one), (b, two) in combinations(boxes, 2) if one.overlaps(two)]
    assert not [name for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1
                or box.y1 > figure.bbox.y1]


def test_validations_stand_at_their_cost(tmp_path):
    put(tmp_path, 'incub', 70.0, phases=[
        phase('meta', 10, 50.0, 4, curve=[(5, 40.0), (10, 50.0)]), phase('module_0', 10),
        phase('assembled', 0, 55.0, seconds=0.0), phase('finetune', 5, 70.0)])
    (run, ), *_ = collect([tmp_path])
    assert [(spot.phase, spot.final, spot.cost, spot.value) for spot in spots(run, 'block_forwards')] == [
        ('meta', False, 20, 40.0), ('meta', False, 40, 50.0), ('assembled', True, 200, 55.0),
        ('finetune', True, 280, 70.0)]
    assert [spot.cost for spot in spots(run, 'seconds')] == [5, 10, 20, 30]


def test_seeds_are_one_curve_where_their_costs_agree(tmp_path):
    for seed, value in enumerate((50.0, 56.0)):
        put(tmp_path, 'e2e', value, seed=seed, phases=[phase('train', 100, value, curve=[(50, 40.), (100, value)])])
    (row, ) = rows_of(tmp_path)
    (line, ) = curves(row, 'block_forwards')
    assert [(spot.low, spot.value, spot.high) for spot in line] == [(40.0, 40.0, 40.0), (50.0, 53.0, 56.0)]
    put(tmp_path, 'e2e', 60.0, seed=2, phases=[phase('train', 100, 60.0, curve=[(60, 40.), (100, 60.)])])
    (row, ) = rows_of(tmp_path)
    assert [[spot.value for spot in line] for line in curves(row, 'block_forwards')] == [
        [40.0, 50.0], [40.0, 56.0], [40.0, 60.0]]
    assert 'one line for each seed' in texts(cost_figure([row]))


def test_plot_only_where_a_run_has_two_validations(tmp_path):
    put(tmp_path, 'e2e', 0.4, 'detection')
    put(tmp_path, 'e2e', 50.0)
    assert plot_costs(collect([tmp_path])[0]) == []
    put(tmp_path, 'longer', 50.0, phases=[phase('train', 100, 50., curve=[(50, 40.), (100, 50.)])])
    (png, ) = plot_costs(collect([tmp_path])[0])
    assert Image.open(io.BytesIO(png)).width > 1000
    assert [png] == plot_costs(collect([tmp_path])[0])


def test_dense_tasks_have_images_and_percent(tmp_path):
    points = [dict(images=at, block_forwards=None, seconds=1.0, metrics={'coco/bbox_mAP': value})
              for at, value in ((50, 0.2), (100, -1.0), (150, 0.41))]
    put(tmp_path, 'incub', 0.41, 'detection', phases=[
        phase('train', 150) | dict(block_forwards=None, metrics={'coco/bbox_mAP': 0.41}, curve=points)])
    (row, ) = rows_of(tmp_path, 'detection')
    (line, ) = curves(row, 'images')
    assert [(spot.cost, spot.value) for spot in line] == [(50, 20.0), (150, 41.0)]  # -1 measured nothing
    shown = texts(cost_figure([row]))
    assert {'images seen', 'box AP (%)', 'incub: 41.0', 'maskrcnn, digits: box AP at each validation'} <= shown.keys()
    assert len(plot_costs(row.runs)) == 1


def test_a_run_that_counted_no_blocks_moves_the_plot_to_seconds(tmp_path):
    put_method(tmp_path, 'e2e', METHODS['e2e'])
    uncounted = phase('train', 100, 50.) | dict(block_forwards=None)
    put(tmp_path, 'old', 50.0, phases=[uncounted], block_forwards=None, hardware='another CPU')
    shown = texts(cost_figure(rows_of(tmp_path)))
    assert 'device-seconds, on several machines' in shown and {'old: 50.0', 'e2e: 66.2'} <= shown.keys()


def test_suite_is_readable(tmp_path):
    put_suite(tmp_path)
    figure = cost_figure(rows_of(tmp_path))
    require_apart(figure)
    shown = texts(figure)
    assert {'meta_only: 97.3 ± 2.8', 'stack_only: 88.4', 'meta model and hybrids', 'mean, lowest and highest seed',
            'top-1 (%)'} <= shown.keys()
    # The meta model and the modules are the same in several rows, so one name is enough for each.
    assert [len(shown[name]) for name in ('meta', 'module_0', 'module_1', 'module_2', 'module_3')] == [1] * 5
    assert len(shown['assembled']) >= 3
    styles = {line.get_linestyle() for line in figure.axes[0].get_lines()}
    assert styles == {'-', '--'}


def test_many_rows_with_bad_names_do_not_cover_each_other(tmp_path):
    evil = ['$\\frac{$', '_hidden', 'a very long name ' * 20, '\x1b[2J\u202e', '%s {0} \\n']
    for i in range(13):
        name = f'{evil[i % 5]}{i}'
        put_method(tmp_path, 'r', [(f'{name}{k}', 100, 40. + i / 50, 55. + k / 4 + i / 50) for k in range(6)],
                   experiment=dict(task='classification', model=evil[2], data=evil[2], method=name))
    rows = rows_of(tmp_path)
    figure = cost_figure(rows)
    require_apart(figure)
    looks = {(line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()}
    assert len(looks) == len(rows) == 13
    assert {'_hidden1: 56.3', '$\\frac{$0: 56.2'} <= texts(figure).keys() and '\x1b' not in ''.join(texts(figure))


def test_an_axis_that_does_not_begin_at_zero_says_so(tmp_path):
    put(tmp_path, 'e2e', 83.0, phases=[phase('train', 100, 83., curve=[(50, 71.), (100, 83.)])])
    figure = cost_figure(rows_of(tmp_path))
    assert 'top-1 (%), the axis begins at 70' in texts(figure) and figure.axes[0].get_ylim()[0] == 70
    put(tmp_path, 'scratch', 40.0)
    figure = cost_figure(rows_of(tmp_path))
    assert 'top-1 (%)' in texts(figure) and figure.axes[0].get_ylim()[0] == 0
