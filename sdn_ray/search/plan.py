"""What a study is: its experiment, space and settings, checked, and kept for --resume."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt

from sdn_ray.config import ExperimentConfig
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import OptionError, UserError, checked
from sdn_ray.files import read_json, write_text
from sdn_ray.metrics.classifier_score import score_name
from sdn_ray.metrics.evaluation import PERCEPTUAL
from sdn_ray.preparation.images import dataset_split
from sdn_ray.runs.experiment import read_kept_experiment, to_yaml
from sdn_ray.scoring.comparison import check_best_of
from sdn_ray.search.space import SCHEME, SearchSpace, read_search_space
from sdn_ray.training.checks import check_experiment

CLASSIFIER_SCORE = "classifier_score"
_OTHER_STAGES = (SCHEME, "method", "stackgan.stage_two.epochs")  # trials' last stages differ


@dataclass(frozen=True)
@checked
class StudySettings:
    """What a search is given beside the experiment and the space."""

    trials: PositiveInt = 20  # in all; a grid has its own number
    objective: Literal["classifier_score", "perceptual_distance"] | None = None  # None: the first
    concurrent: PositiveInt = 1  # trials at a time
    gpus_per_worker: NonNegativeFloat | None = None  # None: 1 where there are enough
    study_storage: str = ""  # Optuna URL
    sampler: Literal["tpe", "random"] = "tpe"
    prune: bool = True
    score_test: bool = False  # of a grid: score every trial on the test classes
    equal_minutes: PositiveFloat | None = None  # of rows: how long each of them trains
    best_of: PositiveInt = 1  # pictures of a caption of which the table's figure shows the best


@dataclass(frozen=True)
class Objective:
    """What trials are compared by."""

    name: str  # of the metric
    maximise: bool


@dataclass(frozen=True)
class StudyPlan:
    """What a study is: its folder holds it all, for `--resume`."""

    folder: Path
    config: ExperimentConfig
    space: SearchSpace
    settings: StudySettings

    @property
    def best(self) -> Path:
        """The file of the best trial's configuration."""
        return self.folder / "best.yaml"

    @property
    def trials(self) -> int:
        """How many trials there are in all."""
        return len(self.space.grid()) if self.space.is_grid else self.settings.trials

    @property
    def prunes(self) -> bool:
        """Whether trials may end early."""
        return self.settings.prune and not self.space.is_grid

    @property
    def objective(self) -> Objective:
        """What trials are compared by; never the training loss, whose weights may be searched.

        Raises:
            UserError: it needs a classifier.
        """
        classifier = self.config.evaluation.classifier
        wanted = self.settings.objective or (CLASSIFIER_SCORE if classifier else PERCEPTUAL)
        if wanted == PERCEPTUAL:
            return Objective(f"validation/{PERCEPTUAL}", maximise=False)
        if not classifier:
            raise UserError(
                f"--objective: {CLASSIFIER_SCORE} needs evaluation.classifier, such as "
                "squeezenet1_1:WEIGHTS; found none"
            )
        return Objective(f"validation/{score_name(classifier.partition(':')[0])}", maximise=True)

    def check(self) -> None:
        """Refuse what cannot be meant, before anything expensive starts.

        Raises:
            UserError: for the first thing that is wrong.
        """
        space, objective = self.space, self.objective
        space.check(self.config)
        check_best_of(self.settings.best_of)
        if self.settings.best_of > 1 and not self.settings.score_test:
            raise UserError(
                f"--best_of: found {self.settings.best_of} without --score_test, at whose end the "
                "figure stands; expected both"
            )
        if space.folders:
            self._check_folders()
        for config in self.experiments():
            check_experiment(config)
        if self.settings.equal_minutes is not None:
            self._check_equal_time()
        varied = next((name for name in _OTHER_STAGES if space.varies(name)), None)
        if self.settings.prune and varied and not space.is_grid:
            raise UserError(
                f"--prune: {space.path} varies {varied}, whose last stages are not alike; expected "
                "--prune false"
            )
        if space.varies("teacher.") and not objective.maximise:
            raise UserError(
                f"--objective: {PERCEPTUAL} is measured by the teacher, which {space.path} varies; "
                f"expected {CLASSIFIER_SCORE}"
            )

    def experiments(self) -> Iterator[ExperimentConfig]:
        """All of a grid; of other spaces those at the ends of its ranges."""
        for values in self.space.grid() if self.space.is_grid else self.space.probes():
            yield self.space.apply(self.config, values)

    def _check_folders(self) -> None:
        """That rows of images can be scored; what is in them: `sdn_ray.search.folders`."""
        found = f"{self.space.path}, whose row {next(iter(self.space.folders))} is a folder"
        if not self.settings.score_test:
            raise UserError(f"--score_test: found false with {found}; expected true, to score it")
        if not self.config.evaluation.classifier:
            raise UserError(
                f"evaluation.classifier: found none with {found}; expected one, such as "
                "squeezenet1_1:WEIGHTS, since folders are scored by no other"
            )

    def _check_equal_time(self) -> None:
        if not self.space.rows:
            raise UserError(
                f"--equal_minutes: found it with {self.space.path}, which has no rows; expected a "
                "space such as search_spaces/table1_methods.yaml"
            )
        if self.config.training.workers > 1:
            raise UserError(
                f"training.workers: found {self.config.training.workers} with --equal_minutes, "
                "which times the steps of one; expected 1"
            )
        counts = [one.name for one in self.space.parameters if one.name.endswith("epochs")]
        if counts:
            raise UserError(
                f"--equal_minutes: it settles the epochs, which {self.space.path} varies by "
                f"{counts[0]}; expected one or the other"
            )

    def split(self, dataset: CaptionedDataset) -> ClassSplit:
        """The classes that the trials see: in a search those for testing are not among them.

        Raises:
            UserError: there are no validation classes to choose by.
        """
        split = dataset_split(dataset, self.config.dataset)
        if not split.validation:
            raise UserError(
                "dataset.validation_classes: found 0; a search chooses on validation classes, "
                "expected some"
            )
        return split if self.settings.score_test else replace(split, test=())

    def write(self) -> None:
        """Keep the plan in the study's folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.space.path, self.folder / "space.yaml")
        write_text(self.folder / "study.json", json.dumps(asdict(self.settings), indent=1))
        write_text(self.folder / "config.yaml", to_yaml(self.config))  # last: now it can go on


def read_plan(folder: Path) -> StudyPlan:
    """The plan of a study that goes on.

    Raises:
        UserError: the folder is not one of a study.
    """
    if not (folder / "config.yaml").exists():
        raise UserError(f"--resume: {folder} has no config.yaml; expected the folder of a study")
    config = read_kept_experiment(folder / "config.yaml")
    space = read_search_space(folder / "space.yaml").fitting(config)
    return StudyPlan(folder, config, space, _read_settings(folder / "study.json"))


def _read_settings(path: Path) -> StudySettings:
    expected = "the settings of a study, as sdn_ray.tune wrote them"
    try:
        return StudySettings(**read_json(path, dict[str, Any], expected))
    except (TypeError, OptionError) as error:
        raise UserError(f"{path}: {error}; expected {expected}") from error
