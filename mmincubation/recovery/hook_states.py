"""Keep in the checkpoints what hooks without a storage of their own have counted, such as EarlyStoppingHook."""
from collections import Counter

from mmengine.dist import all_gather_object
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from mmincubation.incubation.phases import ASSEMBLED
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import unwrap

from .checkpoint_hook import CheckpointHook
from .plain_state import NotPlain, decode, encode, mark

KEY = 'hook_states'  # of a checkpoint
# Hooks of these packages were written for runs whose checkpoints hold no hooks: what they must not lose lies in the
# message hub or in an entry of their own, the rest is made anew. mmengine's EarlyStoppingHook forgets what it needs.
WRITTEN_FOR_RESUMING = ('mmengine', 'mmdet', 'mmseg', 'mmincubation')
STORE = ('before_save_checkpoint', 'after_load_checkpoint')


class HookStates(BaseHook):
    """Store the attributes that hooks change while they train, and restore them when a run resumes.

    It covers each hook of the user, and mmengine's EarlyStoppingHook, unless the hook has `before_save_checkpoint` and
    `after_load_checkpoint`: then it stores itself what it needs. Stored are numbers, text, arrays, tensors and
    containers of them, as rank 0 has them. A hook whose changed attributes are something else, or differ between the
    ranks, is named once in a warning. So is a flag (True or False): it may stand for something that the hook has done
    to the model or the data, and a resumed run has not done that yet. The tools add this hook to every run.
    """
    priority = 'HIGHEST'  # it compares and restores before another hook sees the event

    def __init__(self) -> None:
        self._built: dict[str, dict] | None = None  # marks of the attributes as training began, by hook and name
        self._restored: dict[str, dict] = {}
        self._before_val: tuple[tuple, dict] = (), {}
        self._validated, self._named, self._unequal = False, set(), set()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep the states of a resumed run until the hooks have begun."""
        if runner._resume:
            self._restored = checkpoint.get(KEY, {})
            if KEY not in checkpoint and (hooks := tracked(runner)):
                runner.logger.warning(f'the checkpoint has no states of hooks: {", ".join(hooks)} begin anew')

    def before_train_epoch(self, runner) -> None:
        """Begin, unless a resumed run is within an epoch, which its hooks have begun before."""
        loop = runner.train_loop
        if not isinstance(loop, IterBasedTrainLoop) and not getattr(loop, 'epoch_iters_done', 0):
            self._begin(runner)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Begin, if no epoch has."""
        self._begin(runner)
        self._validated = False

    def before_val(self, runner) -> None:
        """Note the states: a run that resumes from a checkpoint written before the next step validates again."""
        self._begin(runner)
        self._validated = True
        # Side by side, all networks are validated again, but the assembled model alone.
        place = runner.iter, loop_protocol(runner).phase_name == ASSEMBLED
        if self._before_val[0] != place:
            self._before_val = place, self._changed(runner)

    def after_train(self, runner) -> None:
        """Begin, if a resumed run had nothing left to do."""
        self._begin(runner)

    def gather_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the states of the ranks. Every rank calls it."""
        here = {name: mark(plain(hook, list(vars(hook)))[0], set()) for name, hook in tracked(runner).items()}
        ranks = all_gather_object(here)
        self._unequal = {name for name in here if len({rank.get(name) for rank in ranks}) > 1}

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the changed attributes into the checkpoint: plain data by hook and name."""
        changed = self._changed(runner)
        checkpoint[KEY] = self._before_val[1] if self._validated else changed

    def _begin(self, runner) -> None:
        """Mark what the hooks are before the first step, then give them what they had counted."""
        if self._built is not None:
            return
        self._built = {name: marks(hook, runner) for name, hook in tracked(runner).items()}
        device = next(unwrap(runner.model).parameters()).device
        for name, hook in tracked(runner).items():
            for key, value in self._restored.get(name, {}).items():
                setattr(hook, key, decode(value, device))

    def _changed(self, runner) -> dict[str, dict]:
        """Return what has changed since training began; name the hooks for which that cannot be stored."""
        states, lost = {}, []
        for name, hook in tracked(runner).items():
            before, now = (self._built or {}).get(name, {}), marks(hook, runner)
            keys = [key for key in now if now[key] != before.get(key)]
            states[name], problems = plain(hook, keys)
            if keys and name in self._unequal:
                problems.append('it differs between the ranks, that of rank 0 is kept')
            if keys and follows_checkpoint(runner, hook):
                problems.append('it runs after CheckpointHook, so a checkpoint lacks its last step: give it a higher '
                                'priority')
            if problems and name not in self._named:
                self._named.add(name)
                lost.append(f'{name}: {", ".join(problems)}')
        if lost:
            runner.logger.warning(f'a resumed run will not be exactly this one in {"; ".join(lost)}; a hook may store '
                                  f'its state itself, in {STORE[0]} and {STORE[1]}')
        return {name: state for name, state in states.items() if state}


def tracked(runner) -> dict[str, Hook]:
    """Return the hooks whose state HookStates looks after, by class and their number among those of that class."""
    found, seen = {}, Counter()
    for hook in runner.hooks:
        cls = type(hook)
        stock = cls.__module__.partition('.')[0] in WRITTEN_FOR_RESUMING and not isinstance(hook, EarlyStoppingHook)
        stores = all(getattr(cls, name) is not getattr(Hook, name) for name in STORE)
        if not stock and not stores:
            found[f'{cls.__qualname__} {seen[cls.__qualname__]}' if seen[cls.__qualname__] else cls.__qualname__] = hook
            seen[cls.__qualname__] += 1
    return found


def marks(hook: Hook, runner) -> dict[str, object]:
    """Return a mark of each attribute, which changes when the attribute does."""
    known = belongings(runner)
    found = {}
    for key, value in vars(hook).items():
        try:
            found[key] = mark(encode(value), set())
        except NotPlain:
            found[key] = mark(value, known)
    return found


def belongings(runner) -> set[int]:
    """Return the `id` of what belongs to the run itself, has a storage of its own, and may be named by a hook."""
    model: nn.Module = unwrap(runner.model)
    things = [runner, runner.model, *runner.model.modules(), *model.modules(), *model.parameters(), *model.buffers(),
              *runner.hooks, *vars(runner).values()]
    for name in ('train', 'val'):
        if (loop := getattr(runner, f'_{name}_loop')) is not None:
            loader = getattr(loop, 'dataloader', None)
            things += [loop, loader, *vars(loop).values(), *(vars(loader).values() if loader is not None else ())]
            while loader is not None:  # then the data set and those inside
                things.append(loader)
                loader = getattr(loader, 'dataset', None)
    things += [wrapper.optimizer for wrapper in [runner.optim_wrapper] if hasattr(wrapper, 'optimizer')]
    return {id(thing) for thing in things if type(thing) not in (int, str, bool, float, type(None))}


def plain(hook: Hook, keys: list[str]) -> tuple[dict, list[str]]:
    """Return those attributes as plain data, and a few words about each for which that is not possible."""
    state, problems = {}, []
    for key in keys:
        value = getattr(hook, key)
        if isinstance(value, bool):
            problems.append(f'{key} is a flag')
            continue
        try:
            state[key] = encode(value)
        except NotPlain as error:
            problems.append(f'{key} holds a {error}')
    return state, problems


def follows_checkpoint(runner, hook: Hook) -> bool:
    """Return whether a hook acts on a step after the CheckpointHook has stored it."""
    places = [i for i, other in enumerate(runner.hooks) if isinstance(other, CheckpointHook)]
    acts = any(getattr(type(hook), name) is not getattr(Hook, name)
               for name in ('after_train_iter', 'after_train_epoch', '_after_iter', '_after_epoch'))
    return acts and bool(places) and runner.hooks.index(hook) > places[0]
