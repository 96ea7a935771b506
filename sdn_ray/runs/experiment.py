"""An experiment out of YAML and the command line, and back; paths that mean the same everywhere."""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from sdn_ray.config import ExperimentConfig
from sdn_ray.errors import OptionError, UserError, one_line
from sdn_ray.files import SHIPPED, read_yaml, shipped_file, user_path

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")
Given = TypeVar("Given", str, str | None)

DEFAULT_CONFIG = SHIPPED / "jobs" / "quickstart.yaml"
_CONFIG = "YAML with options of an experiment"
_JOB_MARK = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in the entry point of a submitted job


def experiment_parser(prog: str, description: str) -> ArgumentParser:
    """A parser of --config FILE and of every option of an experiment by its dotted name."""
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options.")
    parser.add_class_arguments(ExperimentConfig, sub_configs=False)
    return parser


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse a command line; what is wrong with it becomes one clear error.

    Raises:
        UserError: an unknown option, a wrong type, a file that cannot be read.
    """
    try:
        return parser.parse_args(_with_shipped_config(arguments))
    except ArgumentError as error:
        reason = one_line(error)
        raise UserError(reason + _suggestion(parser, reason)) from error
    # It reads values as YAML, of which some fall between the types that it expects.
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        reason = one_line(error, 200)
        raise UserError(f"an option of the command line or of --config: {reason}") from error


def _suggestion(parser: ArgumentParser, reason: str) -> str:
    """What an option that the parser does not know may have meant."""
    _, _, unknown = reason.partition("unrecognized arguments: ")
    name = unknown.partition(" ")[0].partition("=")[0]
    known = [option for action in parser._actions for option in action.option_strings]
    near = difflib.get_close_matches(name, known, n=1)
    return f". Did you mean {near[0]}?" if near else ""


def _with_shipped_config(arguments: Sequence[str]) -> list[str]:
    """The arguments with the path of a --config that comes with the package."""
    found = list(arguments)
    for place, argument in enumerate(found):
        if argument == "--config" and place + 1 < len(found):
            found[place + 1] = _checked_config(found[place + 1])
        elif argument.startswith("--config="):
            found[place] = f"--config={_checked_config(argument.removeprefix('--config='))}"
    return found


def _checked_config(given: str) -> str:
    """The file of a --config, which may come with the package; what is no YAML is refused."""
    try:
        path = shipped_file(given)
        _check_config(path)
    except UserError as error:
        raise UserError(f"--config: {error}") from error
    return str(path)


def _check_config(path: Path) -> None:
    names = [key.value for key, _ in read_yaml(path, _CONFIG).value]
    if "config" in names:  # the parser would read another file for it, unchecked
        raise UserError(f"{path}: found `config` in a file; expected it on the command line alone")


def experiment_from(namespace: Namespace) -> ExperimentConfig:
    """The experiment among parsed options.

    Raises:
        UserError: an option is empty, or out of its range.
    """
    return _build(ExperimentConfig, namespace)


def _build(kind: type[Options], values: Any, name: str = "") -> Options:
    """Nested options as nested dataclasses; ``name`` is that of their section."""
    if not isinstance(values, Namespace):
        raise UserError(f"{name}: found {values or 'nothing'}, expected options with values")
    arguments = {}
    for spec in fields(kind):
        value = values[spec.name]
        own = f"{name}.{spec.name}" if name else spec.name
        if isinstance(spec.type, type) and is_dataclass(spec.type):
            arguments[spec.name] = _build(spec.type, value, own)
        else:
            arguments[spec.name] = _plain(value)
    try:
        return kind(**arguments)
    except OptionError as error:
        option = f"{name}.{error.option}" if name else error.option
        raise UserError(f"{option}: {error.reason}") from error


def _plain(value: Any) -> Any:
    """The built-in number that jsonargparse's restricted numbers stand for: YAML knows only it."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value) if isinstance(value, int) else float(value)
    return value


def read_experiment(path: Path) -> ExperimentConfig:
    """The experiment of a YAML file, options it leaves out at their defaults.

    Raises:
        UserError: naming the file and what is wrong in it.
    """
    parser = experiment_parser("config", "")
    _check_config(path)
    try:
        return experiment_from(parser.parse_path(str(path)))
    except (ArgumentError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {one_line(error)}") from error


def read_kept_experiment(path: Path) -> ExperimentConfig:
    """The complete experiment of a run's or a study's folder.

    Folders of earlier versions say nothing of `text.whiten`, which there was not: it is off.

    Raises:
        UserError: naming the file and what is wrong in it.
    """
    config = read_experiment(path)
    sections = {key.value: section for key, section in read_yaml(path, _CONFIG).value}
    text = sections.get("text")
    said = {key.value for key, _ in text.value} if isinstance(text, yaml.MappingNode) else set()
    if "whiten" in said:
        return config
    return replace(config, text=replace(config.text, whiten=False))


def to_yaml(config: ExperimentConfig) -> str:
    """The complete configuration as YAML that `read_experiment` and --config read."""
    return yaml.safe_dump(asdict(config), sort_keys=False)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names, as they are typed on the command line."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, Mapping) else value
    return flat


def absolute(path: str, option: str) -> str:
    """A path that means the same in every process.

    Raises:
        UserError: for what cannot be a path, and for a relative one inside a submitted job, which
            runs in a temporary copy of the working directory, where what it writes would vanish.
    """
    try:
        found = user_path(path)
    except UserError as error:
        raise UserError(f"{option}: {error}") from error
    if os.environ.get(_JOB_MARK) and not Path(path).expanduser().is_absolute():
        raise UserError(
            f"{option}: found the relative path {path!r} inside a submitted job, which runs in a "
            "temporary copy of the working directory; expected an absolute path"
        )
    return str(found)


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """The same experiment with every path absolute, as workers and a later resume need it."""

    def path(value: Given, option: str, words: tuple[str, ...] = ()) -> Given:
        return value if value is None or value in words else absolute(value, option)

    dataset = replace(
        config.dataset,
        root=path(config.dataset.root, "dataset.root"),
        test_list=path(config.dataset.test_list, "dataset.test_list"),
        cache=path(config.dataset.cache, "dataset.cache"),
    )
    teacher = replace(
        config.teacher,
        weights=path(config.teacher.weights, "teacher.weights", ("imagenet", "fit")),
    )

    def with_path(spec: str, option: str) -> str:
        """NAME:PATH with an absolute path; a name alone, or a path that is not there, as it is."""
        name, _, file = spec.partition(":")
        found = absolute(file, option) if file else ""
        return f"{name}:{found}" if found and Path(found).exists() else spec

    text = replace(
        config.text,
        encoder=with_path(config.text.encoder, "text.encoder"),
        weights=path(config.text.weights, "text.weights", ("fit", "pretrained")),
        features=with_path(config.text.features, "text.features"),
        embeddings=path(config.text.embeddings, "text.embeddings"),
    )
    evaluation = config.evaluation
    name, colon, file = (evaluation.classifier or "").partition(":")
    if colon:
        file = absolute(file, "evaluation.classifier")
        evaluation = replace(evaluation, classifier=f"{name}:{file}")
    storage = config.storage if "://" in (config.storage or "") else path(config.storage, "storage")
    return replace(
        config,
        storage=storage,
        dataset=dataset,
        teacher=teacher,
        text=text,
        evaluation=evaluation,
    )
