"""An Optuna study as Ray Tune sees it: where trials come from, which are pruned, how they ended.

All that a search knows is in the study's storage, written as it happens, so a search goes on from
there after a kill at any moment; Tune's own snapshots are not needed.

Ray's `OptunaSearch` asks the study for new trials alone, so that one that a kill cut off stays
RUNNING there for ever, where this one takes it up again. It never asks Optuna's pruner either, and
tells the study that a trial which Tune's scheduler stopped is complete.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from sqlalchemy.exc import SQLAlchemyError

from sdn_ray.errors import UserError, one_line
from sdn_ray.files import check_writable
from sdn_ray.search.plan import StudyPlan
from sdn_ray.search.space import SearchSpace
from sdn_ray.training.records import OBJECTIVE

RUNG, REASON = "final_stage_epoch", "reason"
STATUS_TAG = "sdn_ray.status"  # of a trial's MLflow run: running, or how it ended
LAST_EPOCH = "last_epoch"  # whether a trial has trained to its end
RETRIES = 2  # of a trial whose process or node dies
_DEATHS = f"{RETRIES + 1} times"
_ERRORS = "ray_tune/run_trial_*/error.txt"
_FIRST_RANDOM = 10  # trials before TPE has something to go by
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def check_study(name: str, storage: str, *, new: bool, begun: bool = False) -> None:
    """Refuse a storage that cannot be used, or that has another study of this name, or has lost it.

    Args:
        name: of the study.
        storage: Optuna URL.
        new: whether it must not be there yet.
        begun: whether it has trials, which the storage must know.

    Raises:
        UserError: naming the storage.
    """
    if storage in ("sqlite://", "sqlite:///", "sqlite:///:memory:"):
        raise UserError(
            f"--study_storage: found {storage}, which other processes do not see and nobody can go "
            "on with; expected a file, such as sqlite:////absolute/study.db"
        )
    path = storage.removeprefix("sqlite:///")
    is_file = path != storage
    try:
        # A file that is not there yet is made later.
        absent = is_file and not Path(path).exists()
        if absent:
            check_writable(Path(path))
        names = [] if absent else optuna.get_all_study_names(storage)
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError, UserError) as error:
        raise UserError(
            f"--study_storage: {storage} cannot be used ({one_line(error, 300)}); "
            "expected an Optuna URL such as sqlite:////absolute/study.db"
        ) from error
    if begun and name not in names:
        raise UserError(
            f"--resume: {storage} has no study {name}, though its folder has trials; expected the "
            "database that it was begun with"
        )
    if new and name in names:
        raise UserError(
            f"--study_storage: {storage} has a study {name} already; expected a new name, which is "
            "the last part of --output"
        )


def open_study(plan: StudyPlan) -> optuna.Study:
    """The study of a plan in its Optuna storage, made where it is missing; a grid's trials wait.

    The sampler is `tpe` or `random`; a third of the trials, at most ten, are drawn at random before
    TPE has something to go by. Pruning is asynchronous successive halving (ASHA) over the epochs of
    the last stage alone: a trial that is still in stage one has nothing to be compared by.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # every trial has a line of ours
    pruner: BasePruner = NopPruner()
    if plan.prunes:
        pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    study = optuna.create_study(
        study_name=plan.folder.name,
        storage=plan.settings.study_storage,
        load_if_exists=True,
        direction="maximize" if plan.objective.maximise else "minimize",
        pruner=pruner,
    )
    # A sampler that starts anew with the same seed would draw again what a search that goes on has.
    drawn = len(study.get_trials(deepcopy=False))
    study.sampler = _sampler(plan, plan.config.seed + drawn)
    if plan.space.is_grid:
        _enqueue_grid(study, plan.space)
    return study


def _sampler(plan: StudyPlan, seed: int) -> BaseSampler:
    settings = plan.settings
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    first = min(_FIRST_RANDOM, max(1, plan.trials // 3))
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=first, constant_liar=settings.concurrent > 1
    )


def _enqueue_grid(study: optuna.Study, space: SearchSpace) -> None:
    """Let the study try every combination of a grid, each once."""
    for values in space.grid():
        study.enqueue_trial(values, skip_if_exists=True)


def trials_left(study: optuna.Study, trials: int) -> int:
    """How many of so many trials are still to be run, or to be run to their end."""
    return trials - len(study.get_trials(deepcopy=False, states=FINISHED))


class StudySearch(Searcher):
    """Hands the trials of a study to Tune; those that a kill cut off come first.

    Args:
        study: an open one.
        space: what its trials vary.
        trials: of the whole study.
        on_end: called with each trial that has ended.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        trials: int,
        on_end: Callable[[FrozenTrial], None],
    ) -> None:
        super().__init__()  # without a metric: a trial that fails has none to report
        self._study, self._space, self._trials, self._on_end = study, space, trials, on_end
        self._cut_off = study.get_trials(states=(TrialState.RUNNING,))
        self._running: dict[str, optuna.Trial] = {}
        self._pruned: set[str] = set()

    # Ray's annotation leaves out `Searcher.FINISHED`, which it asks for.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        """The next trial's number, values and time, as Tune's `config`."""
        if self._cut_off:
            # The constructor is the one way back to a trial that another process has begun.
            trial = optuna.Trial(self._study, self._cut_off.pop(0)._trial_id)
        elif self._begun() < self._trials:
            trial = self._study.ask()
        else:
            return Searcher.FINISHED
        self._running[trial_id] = trial
        values = self._space.suggest(trial)
        return {"number": trial.number, "values": values, "scheduled": time.time()}

    def _begun(self) -> int:
        states = (*FINISHED, TrialState.RUNNING)
        return len(self._study.get_trials(deepcopy=False, states=states))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: results go to `StudyPruner`."""

    def prune(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Note an epoch of the last stage; whether the trial should end with it."""
        trial = self._running[trial_id]
        if result[RUNG] not in self._study.trials[trial.number].intermediate_values:
            trial.report(result[OBJECTIVE], result[RUNG])
        # A trial that has trained its last epoch has cost all that it can.
        if not result.get(LAST_EPOCH) and trial.should_prune():
            self._pruned.add(trial_id)
            return True
        return False

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Write into the study how a trial ended."""
        trial = self._running.pop(trial_id)
        reason = (result or {}).get(REASON) or None
        if error or reason or not result or OBJECTIVE not in result:
            trial.set_user_attr(REASON, reason or f"it died {_DEATHS}, see {_ERRORS}")
            ended = self._study.tell(trial, state=TrialState.FAIL)
        elif trial_id in self._pruned:
            ended = self._study.tell(trial, state=TrialState.PRUNED)
        else:
            ended = self._study.tell(trial, result[OBJECTIVE])
        self._on_end(ended)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, when Tune takes its snapshots."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study's storage has it all."""


class StudyPruner(FIFOScheduler):
    """Ends the trials that the study's pruner gives up."""

    def __init__(self, search: StudySearch) -> None:
        super().__init__()
        self._search = search

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Stop a trial, or let it go on."""
        if (
            result.get(RUNG)
            and not result.get("done")
            and self._search.prune(trial.trial_id, result)
        ):
            return TrialScheduler.STOP
        return TrialScheduler.CONTINUE
