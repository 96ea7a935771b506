"""python -m sdn_ray.tune: a search over experiments, or a grid of them, on Ray Tune with Optuna."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import optuna
from jsonargparse import ArgumentParser

from sdn_ray.errors import OptionError, UserError
from sdn_ray.files import shipped_file, sole_writer
from sdn_ray.runs.command_line import (
    default_output,
    new_folder,
    parse_with_default_config,
    refuse_others,
    run_command,
)
from sdn_ray.runs.experiment import (
    absolute,
    experiment_from,
    experiment_parser,
    with_absolute_paths,
)
from sdn_ray.runs.folder import end_is_recorded, note_end_recorded
from sdn_ray.runs.lifecycle import run_to_its_end
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import SQLITE, Recorder
from sdn_ray.search.plan import OBJECTIVES, StudyPlan, StudySettings, read_plan
from sdn_ray.search.ray_tune import run_trials
from sdn_ray.search.report import summarise
from sdn_ray.search.session import StudySession, open_study_session
from sdn_ray.search.space import read_search_space
from sdn_ray.search.study import open_study
from sdn_ray.search.table3 import table3

PROG = "python -m sdn_ray.tune"
_PATIENCE = 2  # seconds for a command that is just ending
DESCRIPTION = (
    "Search learning rates, layer weights, stage lengths or any other option of an experiment, "
    "with Optuna's TPE and pruning through Ray Tune. The objective is measured on validation "
    "classes; the test classes are never looked at."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    plan, resumed = _read_arguments(arguments)
    if resumed and end_is_recorded(plan.folder):
        print(f"{plan.folder} is finished, nothing is left to do. The best: {plan.best}")
        return 0
    plan.check()
    with ExitStack() as stack:
        if resumed:
            stack.enter_context(_sole_driver(plan))
        session = open_study_session(plan, resumed=resumed)
        if not resumed:  # now there is a folder
            stack.enter_context(_sole_driver(plan))
        study, recorder = open_study(plan), Recorder(session.tracked, print)

        def search(display: Display) -> bool:
            return _search(study, session, recorder, display)

        run_to_its_end(search, plan.folder, session.tracked, PROG)
    if not recorder.lost:
        note_end_recorded(plan.folder)
    return 0


def _search(
    study: optuna.Study, session: StudySession, recorder: Recorder, display: Display
) -> bool:
    """Run the trials and show what they have come to; True, since it has come to the end."""
    shared = session.prepare(display)
    run_trials(study, shared, display)
    summarise(study, shared, recorder, display)
    if session.plan.settings.score_test:
        table3(study, shared, recorder, display)
    return True


def _sole_driver(plan: StudyPlan) -> AbstractContextManager[None]:
    """No two commands may run trials of one study: each would take the other's for cut off."""
    return sole_writer(plan.folder, patience=_PATIENCE, work="running this study")


def _parser() -> ArgumentParser:
    parser = experiment_parser(PROG, DESCRIPTION)
    add = parser.add_argument
    add("--space", type=str, help="Search space: a YAML file such as those in search_spaces/.")
    add("--trials", type=int, default=20, help="Trials in all; a grid has its own number.")
    add("--output", type=str, help="New study folder. Default: runs/tune-<time>.")
    add("--resume", type=str, help="Study folder to go on with.")
    add("--objective", type=str, help=f"{' or '.join(OBJECTIVES)}, of validation images.")
    add("--concurrent", type=int, default=1, help="Trials at a time; CPUs are shared equally.")
    add(
        "--gpus_per_worker",
        type=float,
        help="Of each trial's workers, such as 0.5. Default: 1 where there are any GPUs.",
    )
    add("--study_storage", type=str, help="Optuna URL. Default: a SQLite file in --output.")
    add(
        "--score_test",
        type=bool,
        default=False,
        help="Of a grid (an ablation, not a search): "
        "score every trial on the test classes, and end in their table.",
    )
    add("--sampler", type=str, default="tpe", help="tpe or random.")
    add("--prune", type=bool, default=True, help="End trials early that promise little (ASHA).")
    return parser


def _read_arguments(arguments: Sequence[str]) -> tuple[StudyPlan, bool]:
    """The plan of a study, and whether it goes on."""
    options, names = parse_with_default_config(_parser(), arguments)
    if options.resume is not None:
        refuse_others(names, "--resume")
        return read_plan(Path(absolute(options.resume, "--resume"))), True
    if options.space is None:
        raise UserError(
            "--space: found none, expected a file such as search_spaces/quickstart.yaml"
        )
    share = options.gpus_per_worker
    if share is not None and (share < 0 or (share > 1 and share % 1)):
        raise UserError(
            f"--gpus_per_worker: found {share}, expected 0, a fraction of 1, or a whole number"
        )
    folder = new_folder(options.output or default_output("tune"))
    try:
        settings = StudySettings(
            trials=options.trials,
            objective=options.objective,
            concurrent=options.concurrent,
            gpus_per_worker=options.gpus_per_worker,
            study_storage=_study_storage(options.study_storage, folder),
            sampler=options.sampler,
            prune=options.prune,
            score_test=options.score_test,
        )
    except OptionError as error:
        raise UserError(f"--{error.option}: {error.reason}") from error
    space = read_search_space(shipped_file(options.space))
    if options.score_test and not space.is_grid:
        raise UserError(
            "--score_test: found true for a search, which chooses on validation classes alone; "
            "expected a space of `grid`, where nothing is chosen"
        )
    config = with_absolute_paths(experiment_from(options))
    return StudyPlan(folder, config, space, settings), False


def _study_storage(url: str | None, folder: Path) -> str:
    """The study's database; a file's path means the same in every process."""
    if url is None:
        return f"{SQLITE}{folder}/study.db"
    if url.startswith(SQLITE):
        return SQLITE + absolute(url.removeprefix(SQLITE), "--study_storage")
    return url


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
