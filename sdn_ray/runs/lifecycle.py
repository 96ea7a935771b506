"""What the commands that train share: a run folder that is new or goes on, and its MLflow run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from ray.train import TrainingFailedError
from rich.table import Table

from sdn_ray.config import ExperimentConfig
from sdn_ray.errors import Interrupted
from sdn_ray.files import write_text
from sdn_ray.runs.experiment import flatten, to_yaml
from sdn_ray.runs.folder import TrackedRun, note_run, noted_run, read_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder, open_experiment, start_run


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
    work: Callable[[], bool],
    run: Path,
    tracked: TrackedRun,
    prog: str,
) -> None:
    """Do the work of a run and tell MLflow, and the user, how it ended.

    Args:
        work: whether it came to the end.
        run: its folder.
        tracked: its MLflow run.
        prog: the command, for how to go on.

    Raises:
        Interrupted: when the user stopped it.
    """
    recorder = Recorder(tracked)
    recorder.status("RUNNING")
    try:
        finished = work()
    except (Interrupted, KeyboardInterrupt):
        finished = False
    except BaseException as error:
        recorder.status("FAILED")
        if isinstance(error, TrainingFailedError):
            print(f"Failed. Once the cause is mended: {prog} --resume {run}")
        raise
    if not finished:
        recorder.status("KILLED")
        kept = any((run / "checkpoints").glob("checkpoint-*")) or (run / "trials").is_dir()
        how = "Stopped. Go on" if kept else "Stopped before anything was saved. Begin again"
        print(f"{how} with: {prog} --resume {run}")
        raise Interrupted
    recorder.status("FINISHED")


def show_scores(run: Path, display: Display, part: str) -> None:
    """The table of a finished run's scores on its test part; nothing where none were asked.

    Args:
        run: its folder.
        display: where.
        part: what the scores are of, in words.
    """
    scores = read_scores(run)
    if not scores:
        return
    table = Table(part, "score", title=run.name, title_justify="left")
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    display.console.print(table)
