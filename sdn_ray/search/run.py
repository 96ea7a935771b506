"""A study as its command runs it: read, checked, opened, run, shown."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import optuna
from jsonargparse import Namespace

from sdn_ray.cluster.resources import stop_ray
from sdn_ray.errors import OptionError, UserError
from sdn_ray.files import shipped_file, sole_writer
from sdn_ray.runs.command_line import default_output, new_folder, refuse_others
from sdn_ray.runs.experiment import absolute, experiment_from, with_absolute_paths
from sdn_ray.runs.folder import end_is_recorded, note_end_recorded
from sdn_ray.runs.lifecycle import run_to_its_end
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import SQLITE, Recorder
from sdn_ray.search.plan import StudyPlan, StudySettings, read_plan
from sdn_ray.search.ray_tune import run_trials
from sdn_ray.search.report import summarise
from sdn_ray.search.session import StudySession, open_study_session
from sdn_ray.search.space import read_search_space
from sdn_ray.search.study import open_study
from sdn_ray.search.table1 import check_table1, footnotes, table1
from sdn_ray.search.table3 import table3

PROG = "python -m sdn_ray.tune"
_PATIENCE = 2  # seconds for a command that is just ending


def tune(options: Namespace, names: Sequence[str], display: Display) -> None:
    """Run a study to its end, or say that it is finished.

    Args:
        options: of the command.
        names: of those that were given.
        display: shows how far it has come.

    Raises:
        UserError: the study cannot be meant, or something that it needs cannot be had.
        Interrupted: the user stopped it.
    """
    plan, resumed = _read_options(options, names)
    if resumed and end_is_recorded(plan.folder):
        display.line(f"{plan.folder} is finished, nothing is left to do. The best: {plan.best}")
        return
    display.wait("checking the search space")
    plan.check()
    for note in footnotes(plan.space):
        display.line(note)
    with ExitStack() as stack:
        if resumed:
            stack.enter_context(_sole_driver(plan))
        session = open_study_session(plan, display, resumed=resumed)
        if not resumed:  # now there is a folder
            stack.enter_context(_sole_driver(plan))
        study, recorder = open_study(plan), Recorder(session.tracked, display.line)

        def search() -> bool:
            return _search(study, session, recorder, display)

        run_to_its_end(search, plan.folder, session.tracked, PROG)
    if not recorder.lost:
        note_end_recorded(plan.folder)
    stop_ray(display)


def _search(
    study: optuna.Study, session: StudySession, recorder: Recorder, display: Display
) -> bool:
    """Run the trials and show what they have come to; True, since it has come to the end."""
    shared = session.prepare(display)
    run_trials(study, shared, display)
    summarise(study, shared, recorder, display)
    if session.plan.settings.score_test:
        table = table1 if session.plan.space.rows else table3
        table(study, shared, recorder, display)
    return True


def _sole_driver(plan: StudyPlan) -> AbstractContextManager[None]:
    """No two commands may run trials of one study: each would take the other's for cut off."""
    return sole_writer(plan.folder, patience=_PATIENCE, work="running this study")


def _read_options(options: Namespace, names: Sequence[str]) -> tuple[StudyPlan, bool]:
    """The plan of a study, and whether it goes on."""
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
    folder = new_folder(default_output("tune") if options.output is None else options.output)
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
            equal_minutes=options.equal_minutes,
            best_of=options.best_of,
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
    if options.score_test and space.rows:
        check_table1(config)
    return StudyPlan(folder, config, space.fitting(config), settings), False


def _study_storage(url: str | None, folder: Path) -> str:
    """The study's database; a file's path means the same in every process."""
    if url is None:
        return f"{SQLITE}{folder}/study.db"
    if url.startswith(SQLITE):
        return SQLITE + absolute(url.removeprefix(SQLITE), "--study_storage")
    return url
