"""python -m sdn_ray.train: from captioned images to a trained generator, on Ray Train."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

from sdn_ray.config import ExperimentConfig
from sdn_ray.errors import in_python
from sdn_ray.runs.command_line import read_run_arguments, run_command, typed
from sdn_ray.runs.experiment import flatten
from sdn_ray.runs.terminal import LOADING, Display

Config = str | Path | Mapping[str, Any] | ExperimentConfig | None

PROG = "python -m sdn_ray.train"
DESCRIPTION = (
    "Train a Symmetrical Distillation Network. Without --config it runs jobs/quickstart.yaml: the "
    "embedded data set and the whole pipeline, in minutes on two cores."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    _train(arguments)
    return 0


@overload
def train(
    config: Config = None, *, output: str | Path | None = None, resume: str | Path | None = None
) -> Path: ...


@overload  # where dotted options are given as a dictionary, it might also have those two
def train(config: Config = None, **options: Any) -> Path: ...


@in_python()
def train(
    config: Config = None,
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    **options: Any,
) -> Path:
    """Train a generator on Ray Train: `python -m sdn_ray.train` as a function.

    It shows what the command shows, records in MLflow, and starts a Ray on this machine, which it
    ends, unless this process has one or ``RAY_ADDRESS`` names one.

    Args:
        config: a YAML file, found as the command finds it; or its options as a dictionary, nested
            or dotted; or an `ExperimentConfig`. Default: jobs/quickstart.yaml.
        output: new run folder. Default: runs/train-<time>.
        resume: run folder to go on with, or its URI, instead of ``config`` and ``options``.
        options: of `sdn_ray.config` by their dotted names, before those of ``config``.

    Returns:
        The run's model, for `sdn_ray.load`; it lies in the run folder.

    Raises:
        UserError: the experiment cannot be meant, or something that it needs cannot be had.
        Interrupted: the user stopped it; ``resume`` goes on.

    Example:
        >>> short = {"distillation.stage_two.epochs": 1}
        >>> path = sdn_ray.train("jobs/quickstart.yaml", output="runs/short", **short)
        >>> path.name, path.parent.name
        ('model', 'short')
    """
    whole: dict[str, Any] = {}
    if isinstance(config, ExperimentConfig):
        whole = asdict(config)
    elif isinstance(config, Mapping):
        whole = dict(config)
    elif config is not None:
        options = {"config": config} | options
    paths = {"output": output, "resume": resume}
    given = {name: path for name, path in paths.items() if path is not None}
    return _train(typed(flatten(whole) | options | given), quickstart=config is None)


def _train(arguments: Sequence[str], *, quickstart: bool = True) -> Path:
    """Train as arguments say; the model's folder."""
    config, folder, known = read_run_arguments(PROG, DESCRIPTION, arguments, quickstart=quickstart)
    with Display() as display:
        display.wait(LOADING)
        from sdn_ray.training import run  # here: it takes seconds, which are named first

        return run.train(config, folder, display, known=known)


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
