"""Ray Tune around the trials of a study."""

import os

import optuna
import ray.tune
from optuna.trial import FrozenTrial, TrialState
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

from sdn_ray.errors import Interrupted
from sdn_ray.runs.terminal import Display
from sdn_ray.search.report import end_line, record_trial
from sdn_ray.search.study import FINISHED, RETRIES, StudyPruner, StudySearch, trials_left
from sdn_ray.search.trial import StudyJob, run_trial

# A trial of one worker starts in the process of the one before it.
REUSE_PROCESSES = True


def run_trials(study: optuna.Study, shared: StudyJob, display: Display) -> None:
    """Run the trials that are left.

    Raises:
        Interrupted: the user stopped before the last of them.
    """
    trials = shared.plan.trials
    left = trials_left(study, trials)
    if left <= 0:
        return
    display.line(f"{trials - left} of {trials} trials done before, {left} to go")
    display.progress("trials", trials - left, trials)
    # Again: a kill may have come between the study's word and MLflow's.
    for trial in study.get_trials(deepcopy=False, states=FINISHED):
        record_trial(shared, trial, display.line)

    def on_end(trial: FrozenTrial) -> None:
        record_trial(shared, trial, display.line)
        display.line(end_line(trial))
        display.progress("trials", trials - trials_left(study, trials), trials)

    search = StudySearch(study, shared.plan.space, trials, on_end)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # `verbose=0` silences the older one alone
    one_worker = shared.plan.config.training.workers == 1
    resources = shared.resources
    trainable = ray.tune.with_resources(
        ray.tune.with_parameters(run_trial, study=shared),
        # With several workers the trial's own process only waits for them. Tune reserves nothing
        # less than one byte.
        {"cpu": resources["CPU"], "gpu": resources.get("GPU", 0)} if one_worker else {"memory": 1},
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=StudyPruner(search),
            num_samples=left,
            max_concurrent_trials=shared.plan.settings.concurrent,
            # Where a pruned trial waits for workers of its own, only the end of its process ends
            # them.
            reuse_actors=REUSE_PROCESSES and one_worker,
        ),
        run_config=RunConfig(
            # Tune's own records; the study and the trials' folders are what counts.
            name="ray_tune",
            storage_path=str(shared.folder),
            failure_config=FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()
    if trials_left(study, trials) > 0:  # Tune ends in silence at Ctrl-C
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            record_trial(shared, trial, display.line)
        raise Interrupted
