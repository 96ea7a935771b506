"""The teacher's weights: given, downloaded, or fitted once and cached."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.resources import use_device
from sdn_ray.cluster.tasks import Runner
from sdn_ray.config import ExperimentConfig, TeacherConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.splits import ClassSplit
from sdn_ray.errors import UserError
from sdn_ray.files import fingerprint
from sdn_ray.models.fit import FitEpoch, FitSettings, fit_teacher
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import load_teacher

FIT = "fit"  # of teacher.weights, beside imagenet and files


def teacher_weights(teacher: TeacherConfig) -> str:
    """What a configuration says of the teacher's weights.

    Raises:
        UserError: nothing.
    """
    if teacher.weights is None:
        raise UserError(
            "teacher.weights: found nothing; expected imagenet (torchvision's weights, "
            "downloaded), a safetensors file, or fit (the plan is first trained as a classifier "
            "of the training classes)"
        )
    return teacher.weights


def fit_plan(teacher: TeacherConfig) -> Plan:
    """The plan of a teacher that is fitted.

    Raises:
        UserError: there is none.
    """
    if teacher.plan is None:
        raise UserError(
            "teacher.plan: found nothing; teacher.weights `fit` needs a plan, for example "
            "16,16,M,32,32,M,64"
        )
    return Plan.parse(teacher.plan)


def prepare_teacher(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    runner: Runner,
    terminal: Terminal,
) -> Path:
    """The file of the teacher's weights: given, downloaded, or fitted once and cached.

    Raises:
        UserError: when the weights cannot be had.
    """
    teacher = config.teacher
    weights = teacher_weights(teacher)
    if weights == "imagenet":
        path = images.cache / f"teacher-imagenet-{teacher.plan}.safetensors"
        if not path.exists():
            load_teacher("imagenet", teacher.plan).save(path)
        return path
    if weights != FIT:
        return Path(weights)
    plan = fit_plan(teacher)
    settings = asdict(teacher.fit)
    if teacher.fit.grid == 1:  # as teachers of earlier versions, which are known by these names
        del settings["grid"]
    key = fingerprint(
        "fit", images.key, split.train, str(plan), settings,
        config.seed, [row.class_id for row in images.dataset.rows],
    )  # fmt: skip
    path = images.cache / f"teacher-fit-{key}.safetensors"
    if path.exists():
        terminal.line(f"teacher: fitted before, taken from {path}")
        return path
    terminal.line(f"teacher: fitting {teacher.plan} as a classifier of the training classes")
    members = images.members(split.train)
    runner(_fit_teacher, config, images, members, path, terminal)
    return path


def _fit_teacher(
    config: ExperimentConfig,
    images: PreparedImages,
    members: np.ndarray,
    path: Path,
    terminal: Terminal,
) -> None:
    settings = config.teacher.fit
    class_ids = np.array([images.dataset.rows[i].class_id for i in members])

    teacher = fit_teacher(
        np.asarray(images.images()[members]),
        class_ids,
        fit_plan(config.teacher),
        FitSettings(
            settings.epochs,
            settings.batch_size,
            settings.learning_rate,
            config.seed,
            grid=settings.grid,
        ),
        device=use_device(),
        on_epoch=fit_progress(terminal, "fitting the teacher", "teacher", len(set(class_ids))),
    )
    teacher.save(path)


def fit_progress(
    terminal: Terminal, doing: str, what: str, classes: int
) -> Callable[[FitEpoch], None]:
    """Shows the epochs of a classifier's training.

    Args:
        terminal: where.
        doing: what is going on, for the bar.
        what: is trained, for the line at its end.
        classes: that it tells apart.
    """

    def on_epoch(epoch: FitEpoch) -> None:
        detail = f"{epoch.held_out_accuracy:.1%} right, loss {epoch.loss:.3g}"
        terminal.progress(doing, epoch.epoch, epoch.epochs, detail)
        if epoch.epoch == epoch.epochs:
            terminal.line(
                f"{what}: {epoch.held_out_accuracy:.1%} of held-out images named right among "
                f"{classes} classes"
            )

    return on_epoch
