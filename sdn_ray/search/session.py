"""What a study opens before its first trial, and prepares for all of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sdn_ray.cluster.precision import settle_precision
from sdn_ray.cluster.progress import Terminal, Watcher
from sdn_ray.cluster.resources import runs_on, start_ray, worker_resources
from sdn_ray.cluster.tasks import ray_runner
from sdn_ray.data.rows import CaptionedDataset
from sdn_ray.data.splits import ClassSplit
from sdn_ray.preparation.images import prepare_configured_images, read_dataset
from sdn_ray.runs.experiment import flatten
from sdn_ray.runs.folder import TrackedRun, note_run
from sdn_ray.runs.lifecycle import open_tracking
from sdn_ray.runs.storage import RunStorage
from sdn_ray.runs.terminal import Display
from sdn_ray.runs.tracking import Recorder, open_experiment, start_run
from sdn_ray.scoring.image_sets import ScoredSet
from sdn_ray.search.equal_time import with_equal_time
from sdn_ray.search.folders import decode_folders, open_folders
from sdn_ray.search.plan import StudyPlan
from sdn_ray.search.study import check_study
from sdn_ray.search.trial import StudyJob
from sdn_ray.training.checks import check_classes, check_sizes
from sdn_ray.training.gawwn import check_annotations, method_locations
from sdn_ray.training.job import prepare_job


@dataclass(frozen=True)
class StudySession:
    """A study that can begin: its data set, MLflow run and share of the cluster."""

    plan: StudyPlan
    dataset: CaptionedDataset
    split: ClassSplit
    resources: dict[str, float]  # of each of a trial's workers
    tracked: TrackedRun
    folders: Sequence[ScoredSet]  # rows of images that no trial draws

    def prepare(self, display: Display) -> StudyJob:
        """What all trials share: pixels, teacher and captions' embeddings, made once."""
        config, split = self.plan.config, self.split
        concurrent = self.plan.settings.concurrent
        display.line(runs_on(self.resources, config.training.workers, concurrent))
        experiments = [config, *self.plan.experiments()]
        by_size = {
            size: prepare_configured_images(
                self.dataset, replace(config.dataset, image_size=size), display
            )
            for size in sorted({one.dataset.image_size for one in experiments})
        }
        images = by_size[config.dataset.image_size]
        counts = [len(images.dataset.rows_of(part)) for part in (split.train, split.test)]
        scored = replace(config.evaluation, score_test=bool(split.test))
        for one in experiments:
            check_sizes(replace(one, evaluation=scored), len(split.train), *counts)
        for one in {(one.method, one.gawwn.locations): one for one in experiments}.values():
            method_locations(one, images.dataset)  # refuses bad ones before a trial has begun
        decode_folders(self.folders, display)
        watch = Watcher(display)
        runner = ray_runner(self.resources)
        job = watch(
            lambda: prepare_job(config, images, split, runner, watch.remote), checkpoints=False
        )
        plan = self.plan
        if plan.settings.equal_minutes is not None:
            space = watch(
                lambda: with_equal_time(plan, job, self.resources, watch.remote), checkpoints=False
            )
            plan = replace(plan, space=space)
        watch.close()
        return StudyJob(plan, job, self.tracked, self.resources, by_size)


def open_study_session(plan: StudyPlan, terminal: Terminal, *, resumed: bool) -> StudySession:
    """Check and open what a study needs; what can be wrong comes before Ray starts.

    Raises:
        UserError: a store, the data set, the storage or the cluster cannot be had.
    """
    config, settings, folder = plan.config, plan.settings, plan.folder
    terminal.wait("opening MLflow's store")
    tracking = open_tracking(config, folder)
    if isinstance(tracking, TrackedRun):  # every new trial begins a run in that store
        open_experiment(replace(config.tracking, uri=tracking.uri))
    dataset = read_dataset(config.dataset, terminal)
    for trial in plan.experiments():
        check_annotations(trial, dataset)
        check_classes(trial, dataset)
    split = plan.split(dataset)
    folders = open_folders(plan.space, dataset, split)
    begun = (folder / "trials").is_dir()
    check_study(folder.name, settings.study_storage, new=not resumed, begun=begun)
    if config.storage:
        RunStorage(config.storage, folder.name).check(folder, new=not resumed)
    start_ray(terminal)
    resources = worker_resources(
        config.training, trials=settings.concurrent, gpus_per_worker=settings.gpus_per_worker
    )
    plan = replace(plan, config=settle_precision(config, resources, terminal))
    if not resumed:
        plan.write()
    tracked = _parent_run(plan, tracking)
    return StudySession(plan, dataset, split, resources, tracked, folders)


def _parent_run(plan: StudyPlan, tracking: TrackedRun | tuple[str, str]) -> TrackedRun:
    """The study's MLflow run, under which its trials stand; see `open_tracking`."""
    if isinstance(tracking, TrackedRun):
        return tracking
    uri, experiment = tracking
    params = flatten(asdict(plan.config)) | flatten({"study": asdict(plan.settings)})
    tags = {"sdn_ray.command": "tune", "sdn_ray.space": plan.space.path.name}
    tracked = start_run(uri, experiment, plan.folder.name, params, tags)
    note_run(plan.folder, tracked)
    Recorder(tracked).file(plan.folder / "space.yaml")
    return tracked
