"""What the commands that train share: a run folder that is new or goes on, and its MLflow run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from ray.train import TrainingFailedError
from rich.table import Table

from sdn_ray.cluster import Display
from sdn_ray.command import new_folder, refuse_others
from sdn_ray.config import (
    DEFAULT_CONFIG,
    ExperimentConfig,
    absolute,
    experiment_from,
    experiment_parser,
    parse,
    read_experiment,
    to_yaml,
    with_absolute_paths,
)
from sdn_ray.errors import Interrupted, UserError
from sdn_ray.export import TrackedRun
from sdn_ray.files import write_text
from sdn_ray.storage import RunStorage, stored_run
from sdn_ray.tracking import (
    Recorder,
    flatten,
    note_run,
    noted_run,
    open_experiment,
    start_run,
)


def parse_with_default_config(
    parser: ArgumentParser, arguments: Sequence[str]
) -> tuple[Namespace, list[str]]:
    """The options of a new experiment, by default the quickstart's, or of one that goes on.

    Returns:
        The parsed options, and the names of those that were given.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    if not {"--config", "--resume"} & set(names):
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    return parse(parser, arguments), names


def default_output(command: str) -> str:
    """The folder of what a command makes, where --output does not say."""
    return str(Path("runs") / f"{command}-{datetime.now():%Y%m%d-%H%M%S}")


def read_run_arguments(
    prog: str, description: str, arguments: Sequence[str]
) -> tuple[ExperimentConfig, Path, bool]:
    """The experiment, its run folder, and whether its storage may know a run of this name.

    Raises:
        UserError: an option is wrong, --output is taken, or --resume names no run.
    """
    command = prog.rpartition(".")[2]
    parser = experiment_parser(prog, description)
    output = f"New run folder. Default: runs/{command}-<time>."
    parser.add_argument("--output", type=str, help=output)
    parser.add_argument("--resume", type=str, help="Run folder to go on with, or its URI.")
    options, names = parse_with_default_config(parser, arguments)
    if options.resume is None:
        run = new_folder(options.output or default_output(command))
        return with_absolute_paths(experiment_from(options)), run, False
    if "://" in options.resume:
        refuse_others(names, "--resume", "--output")
        run = _fetched(options.resume, options.output)
        known = run.name == stored_run(options.resume)[1]
    else:
        refuse_others(names, "--resume")
        run, known = Path(absolute(options.resume, "--resume")), True
    if not (run / "config.yaml").exists():
        raise UserError(f"--resume: {run} has no config.yaml; expected the folder of a run")
    return read_experiment(run / "config.yaml"), run, known


def _fetched(uri: str, output: str | None) -> Path:
    """A run folder brought back from its storage."""
    store, name = stored_run(uri)
    run = new_folder(output or str(Path("runs") / name))
    print(f"fetching {uri} into {run}")
    try:
        found = RunStorage(store, name).pull(run)
    except OSError as error:
        raise UserError(f"--resume: {uri} cannot be read ({error}); expected a run") from error
    if not found:
        raise UserError(f"--resume: {uri} holds no run; expected --storage's URI and its name")
    return run


def open_tracking(config: ExperimentConfig, run: Path) -> TrackedRun | tuple[str, str]:
    """The folder's MLflow run, or where one can begin: the store's URI and the experiment's id.

    Raises:
        UserError: when the store cannot be reached.
    """
    return noted_run(run) or open_experiment(config.tracking)


def begin_run(
    config: ExperimentConfig,
    run: Path,
    tracking: TrackedRun | tuple[str, str],
    tags: Mapping[str, str],
) -> TrackedRun:
    """The folder's MLflow run; where it has none, it begins, and the folder gets its config."""
    if isinstance(tracking, TrackedRun):
        return tracking
    uri, experiment = tracking
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.yaml", to_yaml(config))
    name = config.tracking.run_name or run.name
    tracked = start_run(uri, experiment, name, flatten(asdict(config)), tags)
    note_run(run, tracked)
    return tracked


def run_to_its_end(
    work: Callable[[Display], bool], run: Path, tracked: TrackedRun, prog: str
) -> None:
    """Do the work of a run and tell MLflow, and the user, how it ended.

    Args:
        work: given the terminal; whether it came to the end.
        run: its folder.
        tracked: its MLflow run.
        prog: the command, for how to go on.

    Raises:
        Interrupted: when the user stopped it.
    """
    recorder = Recorder(tracked)
    recorder.status("RUNNING")
    try:
        with Display() as display:
            finished = work(display)
    except Interrupted:
        finished = False
    except BaseException as error:
        recorder.status("FAILED")
        if isinstance(error, TrainingFailedError):
            print(f"Failed. Once the cause is mended: {prog} --resume {run}")
        raise
    if not finished:
        recorder.status("KILLED")
        print(f"Stopped. Go on with: {prog} --resume {run}")
        raise Interrupted
    recorder.status("FINISHED")


def show_scores(run: Path, display: Display) -> None:
    """The table of a finished run's scores on the test classes; nothing where none were asked."""
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    if not scores:
        return
    table = Table("test classes", "score", title=run.name, title_justify="left")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    display.console.print(table)
