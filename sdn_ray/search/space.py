"""Search spaces: YAML files that give options of an experiment distributions, not values."""

import difflib
import itertools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from sdn_ray.config import ExperimentConfig
from sdn_ray.distillation.schemes import DIVERSE
from sdn_ray.errors import UserError, one_line
from sdn_ray.files import read_yaml
from sdn_ray.runs.experiment import experiment_from, experiment_parser
from sdn_ray.training.gawwn import missing_annotations

TOTAL_EPOCHS, STAGE_FRACTION = "total_epochs", "stage_one_fraction"
STAGE_EPOCHS = ("distillation.stage_one.epochs", "distillation.stage_two.epochs")
SCHEME = "distillation.scheme"
ROWS, ROW = "rows", "row"  # settings that have names; the parameter that chooses one of them
IMAGES = "images"  # of a row that is not trained: a folder of them
PREPARED = ("teacher.", "text.")  # options by which trials differ in what they are taught by
IMAGE_SIZE = "dataset.image_size"  # which rows may have of their own: methods have their sizes
_SHARED = {  # options that no trial has of its own, and why
    "dataset.": "which classes and sizes the objective is measured on",
    "evaluation.": "how the objective is measured",
    "training.workers": "what all trials reserve",
    "training.device": "what all trials reserve",
    "training.cpus_per_worker": "what all trials reserve",
}
_FACTORS = "distillation.weight_factors."
_PRECISION = "training.precision"
_MOST_VALUES, _MOST_TRIALS = 200, 2000  # all of which are checked before the first one begins
_RANGES = ("loguniform", "uniform", "int")
_KINDS = (*_RANGES, "choice", "grid")
_EXAMPLE = "such as {loguniform: [1.0e-4, 1.0e-2]} or {choice: [sdn, sdn_diverse]}"


@dataclass(frozen=True)
class Parameter:
    """One searched option and its distribution."""

    name: str
    kind: str  # of `_KINDS`
    values: tuple[Any, ...]  # the low and the high end of a range, or all values
    line: int  # of the file, from 1

    def suggest(self, trial: optuna.Trial) -> Any:
        """A value from an Optuna trial."""
        if self.kind == "int":
            return trial.suggest_int(self.name, *self.values)
        if self.kind in _RANGES:
            return trial.suggest_float(self.name, *self.values, log=self.kind == "loguniform")
        return trial.suggest_categorical(self.name, self.values)


@dataclass(frozen=True)
class SearchSpace:
    """What a search varies.

    Every parameter is an option of an experiment by its dotted name; the factors of layer weights
    are named by layer, group or `image` (``distillation.weight_factors.conv3``). With
    ``total_epochs`` the parameter ``stage_one_fraction`` splits them between the two stages. A
    grid may begin with ``rows``: options that go together under a name, such as a method's. A row
    of ``images`` alone is a folder that another system has drawn: no trial, but scored with them.
    """

    path: Path
    parameters: tuple[Parameter, ...]
    total_epochs: int | None = None
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # options by name
    # Of the rows those that the data set cannot be trained with, and what it lacks.
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_grid(self) -> bool:
        """Whether every combination is tried, rather than drawn."""
        return self.parameters[0].kind == "grid"

    @property
    def folders(self) -> dict[str, Path]:
        """The rows that are folders of images."""
        return {name: Path(own[IMAGES]) for name, own in self.rows.items() if IMAGES in own}

    def varies(self, *prefixes: str) -> bool:
        """Whether trials differ in an option that begins so."""
        names = [parameter.name for parameter in self.parameters]
        names += [name for options in self.rows.values() for name in options]
        return any(name.startswith(prefixes) for name in names)

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values for all parameters from an Optuna trial."""
        return {parameter.name: parameter.suggest(trial) for parameter in self.parameters}

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of the values, the last parameter moving fastest."""
        names = [parameter.name for parameter in self.parameters]
        rows = itertools.product(*(parameter.values for parameter in self.parameters))
        return [dict(zip(names, row, strict=True)) for row in rows]

    def corners(self) -> list[dict[str, Any]]:
        """The first values of all parameters, and the last ones."""
        return [{p.name: p.values[end] for p in self.parameters} for end in (0, -1)]

    def probes(self) -> list[dict[str, Any]]:
        """The corners, and every value by which trials differ in teacher or text encoder."""
        first, last = self.corners()
        prepared = [p for p in self.parameters if p.name.startswith(PREPARED)]
        return [first, last, *(first | {p.name: value} for p in prepared for value in p.values)]

    def apply(self, config: ExperimentConfig, values: Mapping[str, Any]) -> ExperimentConfig:
        """The experiment of a trial.

        Raises:
            UserError: when the values do not make one; the message names file and line.
        """
        options = asdict(config)
        for name, value in self._options(values).items():
            section, last = options, name
            while "." in last:
                first, _, last = last.partition(".")
                section = section[first]
            section[last] = value
        try:
            return experiment_from(_trial_parser().parse_object(options))
        except (ArgumentError, TypeError, ValueError) as error:
            reason = one_line(error)
            raise UserError(f"{self.path}: a trial with {dict(values)}: {reason}") from error

    def _options(self, values: Mapping[str, Any]) -> dict[str, Any]:
        options = dict(values)
        if ROW in options:
            options = {**self.rows[options.pop(ROW)], **options}
        if self.total_epochs is not None:
            share = round(options.pop(STAGE_FRACTION) * self.total_epochs)
            first = min(max(share, 1), self.total_epochs - 1)
            options |= dict(zip(STAGE_EPOCHS, (first, self.total_epochs - first), strict=True))
        if options.get(SCHEME, DIVERSE) != DIVERSE:
            options.setdefault("distillation.samples", 1)  # which belong to that scheme alone
        return options

    def fitting(self, config: ExperimentConfig) -> "SearchSpace":
        """The same without those rows whose methods need annotations that the data set lacks.

        Raises:
            UserError: when no row is left.
        """
        missing: dict[str, str] = {}
        for row, options in self.rows.items():
            if IMAGES in options:
                continue
            lacks = missing_annotations(options.get("method", config.method), config.dataset.name)
            if lacks:
                missing[row] = f"{config.dataset.name}, {lacks}"
        if not missing:
            return self
        kept = tuple(row for row in self.rows if row not in {*missing, *self.folders})
        if not kept:
            raise UserError(
                f"{self.path}: rows: found none that can be trained on {config.dataset.name}, "
                f"expected methods that do without its annotations"
            )
        parameters = tuple(
            replace(one, values=kept) if one.name == ROW else one for one in self.parameters
        )
        return replace(self, parameters=parameters, left_out=missing)

    def check(self, config: ExperimentConfig) -> None:
        """Try the ends of every range and every value once.

        Raises:
            UserError: naming the line of the first parameter that the experiment cannot have.
        """
        first, _ = self.corners()
        for parameter in self.parameters:
            if parameter.name == _PRECISION and "auto" in parameter.values:
                raise UserError(
                    f"{self.path}, line {parameter.line}: {_PRECISION} cannot be auto, which is "
                    "settled once for a whole study; expected fp32 and bf16"
                )
        for parameter in self.parameters:
            for value in parameter.values:
                try:
                    self.apply(config, first | {parameter.name: value})
                except UserError as error:
                    raise UserError(
                        f"{self.path}, line {parameter.line}: {parameter.name} cannot be {value}: "
                        f"{error}"
                    ) from error


@cache
def _trial_parser() -> ArgumentParser:
    """Made once: it takes longer than to check a trial by it."""
    return experiment_parser("trial", "")


def read_search_space(path: Path) -> SearchSpace:
    """Read a search space.

    Raises:
        UserError: naming the line with an unknown key, a wrong type or an empty range.
    """
    try:
        node = read_yaml(path, "YAML of options with a distribution each")
    except UserError as error:
        raise UserError(f"--space: {error}") from error
    known = _option_names()
    parameters: list[Parameter] = []
    total_epochs = None
    rows: dict[str, dict[str, Any]] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        where = f"{path}, line {line}: {name}"
        content = yaml.SafeLoader("").construct_object(value, deep=True)
        if name == TOTAL_EPOCHS:
            total_epochs = _total_epochs(where, content)
            continue
        if name == ROWS:
            rows = _rows(where, content, known)
            trained = tuple(row for row, options in rows.items() if IMAGES not in options)
            if not trained:
                raise UserError(
                    f"{where}: found folders of images alone, expected a row that is trained; "
                    "sdn_ray.evaluate scores folders"
                )
            parameters.append(Parameter(ROW, "grid", trained, line))
            continue
        factor = name.removeprefix(_FACTORS)
        is_factor = factor != name and "." not in factor
        if name not in known and not is_factor and name != STAGE_FRACTION:
            raise UserError(f"{where}: is no option of a trial; expected {_near(name, known)}")
        _refuse_shared(where, name)
        kind, values = _distribution(where, content)
        if name == STAGE_FRACTION:
            _check_fraction(where, values)
        for value in values:
            file = str(value).rpartition(":")[2]
            relative = file and not Path(file).is_absolute()
            # A name with a slash may be one of a model hub.
            if (
                name.startswith(PREPARED)
                and relative
                and (Path(file).is_file() or ("/" in file and name.endswith(".weights")))
            ):
                raise UserError(
                    f"{where}: found the relative path {file}, which trials would look for in "
                    "their own folders; expected an absolute one"
                )
        parameters.append(Parameter(name, kind, values, line))
    return _checked(SearchSpace(path, tuple(parameters), total_epochs, rows))


def _refuse_shared(where: str, name: str) -> None:
    shared = next((why for prefix, why in _SHARED.items() if name.startswith(prefix)), None)
    if shared:
        raise UserError(
            f"{where}: settles {shared}, which trials of one study must have in common to be "
            "compared; expected another option. Run a study for each"
        )


def _rows(where: str, content: Any, known: set[str]) -> dict[str, dict[str, Any]]:
    """Settings by their names, each a mapping from options to values."""
    if not isinstance(content, dict) or not content:
        raise UserError(
            f"{where}: found {content}, expected settings by name, such as "
            "{SDN: {distillation.scheme: sdn}}"
        )
    for name, options in content.items():
        if not isinstance(options, dict):
            raise UserError(f"{where}: {name}: found {options}, expected options with a value each")
        if IMAGES in options:
            folder = options[IMAGES]
            if len(options) > 1 or not isinstance(folder, str) or not Path(folder).is_absolute():
                raise UserError(
                    f"{where}: {name}: found {options}, expected beside {IMAGES} no other option, "
                    "and an absolute path as its value"
                )
            continue
        for option in options:
            inner = f"{where}: {name}: {option}"
            if option not in known and not str(option).startswith(_FACTORS):
                raise UserError(
                    f"{inner}: is no option of a trial; expected {_near(option, known)}"
                )
            if option != IMAGE_SIZE:
                _refuse_shared(inner, option)
    return {str(name): dict(options) for name, options in content.items()}


def _checked(space: SearchSpace) -> SearchSpace:
    kinds = {parameter.kind for parameter in space.parameters}
    if not kinds:
        raise UserError(f"{space.path}: found no parameter with a distribution, expected some")
    if "grid" in kinds and len(kinds) > 1:
        line = next(p.line for p in space.parameters if p.kind != "grid")
        raise UserError(
            f"{space.path}, line {line}: found a distribution beside `grid`; expected grids alone, "
            "of which every combination is tried, or `choice`"
        )
    trials = math.prod(len(p.values) for p in space.parameters) if "grid" in kinds else 0
    if trials > _MOST_TRIALS:
        raise UserError(
            f"{space.path}: found a grid of {trials} trials, expected at most {_MOST_TRIALS}"
        )
    names = {parameter.name for parameter in space.parameters}
    if (STAGE_FRACTION in names) != (space.total_epochs is not None):
        raise UserError(
            f"{space.path}: {TOTAL_EPOCHS} and {STAGE_FRACTION} belong together, found one of them"
        )
    fixed = names & set(STAGE_EPOCHS)
    if space.total_epochs is not None and fixed:
        raise UserError(
            f"{space.path}: found {', '.join(sorted(fixed))} beside {TOTAL_EPOCHS}, which settles "
            "both; expected one or the other"
        )
    return space


def _option_names() -> set[str]:
    """The dotted names of all options that a trial may have of its own."""

    def names(section: Mapping[str, Any], prefix: str) -> set[str]:
        found: set[str] = set()
        for key, value in section.items():
            name = f"{prefix}{key}"
            found |= names(value, f"{name}.") if isinstance(value, dict) and value else {name}
        return found

    # Where a run is recorded and where caches lie belong to the study, not to a trial.
    return {
        name
        for name in names(asdict(ExperimentConfig()), "")
        if not name.startswith("tracking.")
        and name not in ("storage", "dataset.cache", _FACTORS[:-1])
    }


def _near(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return " or ".join(close) or "a dotted name such as distillation.stage_one.learning_rate"


def _total_epochs(where: str, content: Any) -> int:
    if type(content) is not int or content < 2:
        raise UserError(f"{where}: found {content}, expected a whole number of at least 2")
    return content


def _distribution(where: str, content: Any) -> tuple[str, tuple[Any, ...]]:
    """Kind and values of a parameter."""
    if not isinstance(content, dict) or len(content) != 1 or next(iter(content)) not in _KINDS:
        raise UserError(
            f"{where}: found {content}, expected one of {', '.join(_KINDS)}, {_EXAMPLE}"
        )
    [(kind, values)] = content.items()
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: {kind}: found {values}, expected a list with values in it")
    if kind in _RANGES:
        _check_range(where, kind, values)
    elif not all(isinstance(value, str | int | float | bool | None) for value in values):
        raise UserError(f"{where}: {kind}: found {values}, expected plain values")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if len(values) > _MOST_VALUES or (twice is not None and kind not in _RANGES):
        found = f"{twice} twice" if twice is not None else f"{len(values)} values"
        expected = f"expected at most {_MOST_VALUES}, each once"
        raise UserError(f"{where}: {kind}: found {found}, {expected}")
    return kind, tuple(values)


def _check_fraction(where: str, values: tuple[Any, ...]) -> None:
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value <= 1):
            raise UserError(f"{where}: found {value!r}, expected numbers from 0 to 1")


def _check_range(where: str, kind: str, values: list[Any]) -> None:
    number = int if kind == "int" else (int, float)
    if len(values) != 2 or not all(
        isinstance(value, number) and not isinstance(value, bool) for value in values
    ):
        what = (
            "whole numbers" if kind == "int" else "numbers (1.0e-4, since YAML reads 1e-4 as text)"
        )
        raise UserError(f"{where}: {kind}: found {values}, expected two {what}")
    if not all(math.isfinite(value) for value in values):
        raise UserError(f"{where}: {kind}: found {values}, expected two finite numbers")
    low, high = values
    if not low < high:
        raise UserError(f"{where}: {kind}: found the empty range {values}, expected low < high")
    if kind == "loguniform" and low <= 0:
        raise UserError(f"{where}: {kind}: found the low end {low}, expected more than 0")
