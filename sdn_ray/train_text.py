"""python -m sdn_ray.train_text: a text encoder from captioned images, on Ray Train."""

from collections.abc import Sequence
from pathlib import Path

from sdn_ray.cluster.progress import Watcher
from sdn_ray.cluster.resources import runs_on
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.models.image_features import TEACHER
from sdn_ray.preparation.features import feature_source, prepare_features
from sdn_ray.preparation.teacher import prepare_teacher
from sdn_ray.runs.command_line import read_run_arguments, run_command
from sdn_ray.runs.folder import read_metrics
from sdn_ray.runs.lifecycle import run_to_its_end, show_scores
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import look_line
from sdn_ray.training.checks import check_text_training
from sdn_ray.training.ray_train import fit
from sdn_ray.training.records import finished_before
from sdn_ray.training.session import Session, open_session
from sdn_ray.training.text_worker import EXPORT, TextJob, run_text_job

PROG = "python -m sdn_ray.train_text"
DESCRIPTION = (
    "Train a text encoder on the training classes of a data set: captions against fixed image "
    "features, by the symmetric structured joint embedding loss. The options are those of "
    "sdn_ray.train; `text` says what is trained."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    config, folder, known = read_run_arguments(PROG, DESCRIPTION, arguments)
    if known and finished_before(folder, folder / EXPORT):
        return 0
    check_text_training(config)
    tags = {"sdn_ray.command": "train_text", "sdn_ray.encoder": config.text.encoder}
    session = open_session(config, folder, tags, known=known)
    run_to_its_end(lambda display: _train(session, display), folder, session.tracked, PROG)
    _summarise(folder, session.tracked.uri)
    return 0


def _train(session: Session, display: Display) -> bool:
    """Prepare and train; whether it came to the end."""
    config, split = session.config, session.split
    display.line(runs_on(session.resources))
    images = session.images(display)
    watch = Watcher(display)
    runner = ray_runner(session.resources)
    teacher: Path | None = None
    if config.text.features == TEACHER:
        teacher = watch(
            lambda: prepare_teacher(config, images, split, runner, watch.remote), checkpoints=False
        )
    source = feature_source(config, teacher, split)
    features = prepare_features(images, source, display.progress)
    job = TextJob(config, session.folder, images, split, features, source, session.tracked)
    return watch(
        lambda: fit(
            run_text_job,
            job,
            1,
            session.resources,
            watch.remote,
            (job.run.name, ""),
            max_failures=config.training.max_failures,
        ),
        checkpoints=True,
    )


def _summarise(run: Path, uri: str) -> None:
    """The table at the end of a run."""
    display = Display()
    show_scores(run, display)
    display.line(f"last epoch: loss {read_metrics(run)[-1]['loss']:.4g}")
    display.line(f"encoder: {run / EXPORT} (for --text.weights, and evaluate --text-encoder)")
    display.line(look_line(uri))


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
