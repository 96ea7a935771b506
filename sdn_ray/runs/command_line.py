"""What every command shares: its arguments, errors in words, exit codes."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from sdn_ray.config import ExperimentConfig
from sdn_ray.errors import Interrupted, UserError
from sdn_ray.files import about_a_path, check_writable
from sdn_ray.runs.experiment import (
    DEFAULT_CONFIG,
    absolute,
    experiment_from,
    experiment_parser,
    parse,
    read_kept_experiment,
    with_absolute_paths,
)
from sdn_ray.runs.storage import RunStorage, stored_run

USER_ERROR, INTERRUPTED = 2, 130
_LONGEST_ERROR = 1500  # characters


def check_at_least(options: Any, **least: int) -> None:
    """Refuse options below their least value; those that were not given are left alone.

    Raises:
        UserError: for the first.
    """
    for name, minimum in least.items():
        if options.get(name) is not None and options[name] < minimum:
            raise UserError(f"--{name}: found {options[name]}, expected at least {minimum}")


def new_folder(output: str) -> Path:
    """The folder of --output, for something new.

    Raises:
        UserError: when something is there.
    """
    folder = Path(absolute(output, "--output"))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"--output: {folder} already holds files; expected a new or empty folder. "
            f"To go on with what is there, use --resume {folder}"
        )
    return new_output(folder)


def new_output(path: Path) -> Path:
    """A path of --output that can be written; what is there must be an ordinary file or folder.

    Raises:
        UserError: when it cannot.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"--output: {path} is a device, expected a file or folder")
    try:
        check_writable(path)
    except UserError as error:
        raise UserError(f"--output: {error}") from error
    return path


def new_file(path: Path, expected: str) -> Path:
    """A file of --output that can be written, over an older one too.

    Raises:
        UserError: when it cannot, or a folder is there; ``expected`` is in its words.
    """
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder, expected {expected}")
    return new_output(path)


def refuse_others(names: Sequence[str], *allowed: str) -> None:
    """Refuse options beside --resume, which would contradict what it goes on with.

    Raises:
        UserError: naming them.
    """
    others = [name for name in names if name.startswith("--") and name not in allowed]
    if others:
        raise UserError(
            f"--resume: found {', '.join(others)} beside it; expected no other option, since the "
            "folder's own files say everything"
        )


def add_address_options(parser: ArgumentParser, port: int) -> None:
    """Options of a page's address, and of who may open it."""
    add = parser.add_argument
    add("--port", type=int, default=port, help="0 takes a free one.")
    add("--host", type=str, default="localhost", help="Another one needs --token.")
    add("--token", type=str, help="What the link must hold. Default: $SDN_RAY_TOKEN.")


def name_and_path(text: str) -> tuple[str, str]:
    """DIR or NAME=DIR as a user gives it; the name is empty where there is none."""
    name, equals, path = text.partition("=")
    return (name, path) if equals and "/" not in name else ("", text)


def add_index_options(parser: ArgumentParser, *, required: bool = True) -> None:
    """Options of an index of training images, to find the nearest ones (section 4.6)."""
    add = parser.add_argument
    what = "imagenet, or a safetensors file of a VGG."
    add("--teacher", type=str, required=required, help=what)
    add("--plan", type=str, help="The VGG's plan, where its file does not say.")
    add("--fc_width", type=int, default=4096, help="Width of fc6 and fc7.")
    add("--epochs", type=int, default=10, help="Of fine-tuning.")
    add("--learning_rate", type=float, default=3e-4, help="The highest of fine-tuning.")
    add("--cache", type=str, help="Where network and index are kept. Default: ~/.cache/sdn_ray.")


def run_command(main: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Run a command; what the user got wrong is one line on stderr, not a traceback."""
    try:
        return main(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        return _refuse(str(error))
    except (Interrupted, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        about = about_a_path(error)
        if about is None:
            raise
        return _refuse(about)


def _refuse(reason: str) -> int:
    """Print an error on one line, whatever names of the user's are in it."""
    line = " ".join(reason.split())
    line = line if len(line) <= _LONGEST_ERROR else f"{line[:_LONGEST_ERROR]}…"
    print(f"error: {line}", file=sys.stderr)
    return USER_ERROR


def typed(options: Mapping[str, Any]) -> list[str]:
    """Options that are given in Python, as they are typed on a command line.

    Raises:
        UserError: one is neither text nor a path, number, truth value, nor made of them.
    """
    arguments = []
    for name, value in options.items():
        try:
            text = str(value) if isinstance(value, str | Path) else json.dumps(value)
        except TypeError as error:
            raise UserError(
                f"--{name}: found {value!r:.100}, expected text, a number, true or false"
            ) from error
        arguments.append(f"--{name}={text}")
    return arguments


def parse_with_default_config(
    parser: ArgumentParser, arguments: Sequence[str], *, quickstart: bool = True
) -> tuple[Namespace, list[str]]:
    """The options of a new experiment, by default the quickstart's, or of one that goes on.

    Args:
        parser: of the command.
        arguments: of the command line.
        quickstart: whether what neither --config nor --resume says is the quickstart's.

    Returns:
        The parsed options, and the names of those that were given.
    """
    names = [argument.partition("=")[0] for argument in arguments]
    if quickstart and not {"--config", "--resume"} & set(names):
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    return parse(parser, arguments), names


def default_output(command: str) -> str:
    """The folder of what a command makes, where --output does not say."""
    return str(Path("runs") / f"{command}-{datetime.now():%Y%m%d-%H%M%S}")


def read_run_arguments(
    prog: str, description: str, arguments: Sequence[str], *, quickstart: bool = True
) -> tuple[ExperimentConfig, Path, bool]:
    """The experiment, its run folder, and whether its storage may know a run of this name.

    Args:
        prog: the command.
        description: for its --help.
        arguments: of the command line.
        quickstart: see `parse_with_default_config`.

    Raises:
        UserError: an option is wrong, --output is taken, or --resume names no run.
    """
    command = prog.rpartition(".")[2]
    parser = experiment_parser(prog, description)
    output = f"New run folder. Default: runs/{command}-<time>."
    parser.add_argument("--output", type=str, help=output)
    parser.add_argument("--resume", type=str, help="Run folder to go on with, or its URI.")
    options, names = parse_with_default_config(parser, arguments, quickstart=quickstart)
    if options.resume is None:
        run = new_folder(default_output(command) if options.output is None else options.output)
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
    return read_kept_experiment(run / "config.yaml"), run, known


def _fetched(uri: str, output: str | None) -> Path:
    """A run folder brought back from its storage."""
    store, name = stored_run(uri)
    if not store or not name:
        raise UserError(f"--resume: found {uri}, expected --storage's URI, / and a name")
    run = new_folder(output or str(Path("runs") / name))
    print(f"fetching {uri} into {run}")
    try:
        found = RunStorage(store, name).pull(run)
    except OSError as error:
        raise UserError(f"--resume: {uri} cannot be read ({error}); expected a run") from error
    if not found:
        raise UserError(f"--resume: {uri} holds no run; expected --storage's URI and its name")
    return run
