"""One training worker: the plain training loop, with its run folder, scores and MLflow around it.

Ray Train runs it in every worker process; it imports no Ray itself, so that a trial of one worker
may run it in its own process.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.data.synthetic.flowers import read_species
from sdn_ray.files import file_hash, sole_writer, write_text
from sdn_ray.methods.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    remove_partial_files,
    save_checkpoint,
)
from sdn_ray.methods.loop import (
    EpochResult,
    Hooks,
    LoopOptions,
    StepProgress,
    Training,
    current_state,
    distill,
)
from sdn_ray.methods.precision import settled
from sdn_ray.methods.sdn import SDN, Computing, stored_weights
from sdn_ray.metrics.attributes import Shown
from sdn_ray.metrics.evaluation import TEST_SPLITS, evaluate_generator, spread
from sdn_ray.models.classifiers import Classifier, load_classifier
from sdn_ray.models.drawing import draw_images, draw_samples
from sdn_ray.models.export import export_model
from sdn_ray.models.image_generators import ImageGenerator
from sdn_ray.models.teacher import load_teacher
from sdn_ray.pictures import captioned_grid
from sdn_ray.runs.folder import check_same, forget_epochs_after, note_epoch
from sdn_ray.runs.tracking import Recorder
from sdn_ray.text.whitening import load_whitening
from sdn_ray.training.build import (
    average_decay,
    config_weights,
    method_identity,
    new_sdn,
)
from sdn_ray.training.gans import GANS, Gan, new_gan
from sdn_ray.training.job import TrainingJob, WorkerContext
from sdn_ray.training.records import (
    LAST_MODEL,
    MODEL,
    SAMPLES,
    TEST_SHEET,
    Curves,
    collapse,
    record_end,
    record_epoch,
    sheet_name,
    telling,
)

Value = TypeVar("Value")
_GRID_DRAWS = 3  # of a caption in a grid, by a generator that takes noise


def run_job(job: TrainingJob, context: WorkerContext) -> bool:
    """Do one worker's part of a training; whether it came to the end."""
    return Worker(job, context).run()


class Worker:
    """One of the data-parallel workers of a training; rank 0 also keeps the run folder.

    Args:
        job: what to train.
        context: which worker this is, and whom it tells.
    """

    def __init__(self, job: TrainingJob, context: WorkerContext) -> None:
        self.job, self.config, self.context = job, job.config, context
        self.terminal, self.rank, self.device = context.terminal, context.rank, context.device
        self.train_data = job.encoded(job.split.train)
        self.recorder = (
            Recorder(job.tracked, self.terminal.line) if self.rank == 0 and job.tracked else None
        )
        self.curves = Curves(job.run)
        self.storage = job.storage()
        self.classifier: Classifier | None = None
        if self.rank == 0 and self.config.evaluation.classifier:
            self.classifier = load_classifier(self.config.evaluation.classifier, self.device)
        # Without validation classes (the paper's presets) the scores are of training images, and
        # their names say so.
        watched = job.split.validation or job.split.train
        self.watched_name = "validation" if job.split.validation else "train"
        self.watched = spread(job.encoded(watched), self.config.evaluation.images)
        self.batches = EpochBatches(
            self.train_data,
            batch_size=self.config.training.batch_size,
            seed=self.config.seed,
            flips=self.config.training.flips,
            rank=self.rank,
            world_size=context.world_size,
            device=self.device,
        )

    def run(self) -> bool:
        """Train from the last checkpoint, if there is one, to the exported model.

        Returns:
            Whether it came to the end; False when the user asked to stop.
        """
        if self.storage:  # a worker on another machine may not see the folder of the one before
            self.storage.pull(self.job.run)
        if self.rank == 0:
            self.job.run.mkdir(parents=True, exist_ok=True)
            with sole_writer(self.job.run):
                return self._run()
        return self._run()

    def _run(self) -> bool:
        self._wait("reading networks and data")
        run = self._restore()
        self._wait_for_stage(run)
        hooks = Hooks(self._on_progress, self._on_epoch, self._on_checkpoint)
        finished = distill(run, self.batches, hooks)
        if self.rank == 0:
            self.curves.draw()
        if finished and self.rank == 0:
            self._finish(run)
        if self.storage and self.rank == 0:
            self._store()
            self._tell_storage_failure(self.storage.settle())
        return finished

    def _wait(self, what: str) -> None:
        if self.rank == 0:
            self.terminal.wait(what)

    def _wait_for_stage(self, run: Training) -> None:
        """Say what comes before the first steps of a stage."""
        if run.finished:
            return
        compiled = self.config.training.compile and not run.stage.adversarial
        what = "compiling, a minute or so" if compiled else "first steps"
        self._wait(f"{run.stage.name}: {what}")

    def _store(self) -> None:
        """Keep the run folder a second time; what fails there costs a warning, not the training."""
        if self.storage:
            self._tell_storage_failure(self.storage.push_behind(self.job.run))

    def _tell_storage_failure(self, reason: str | None) -> None:
        if reason:
            self.terminal.line(f"storage: {self.job.config.storage} did not take all: {reason}")

    def _restore(self) -> Training:
        # What another worker sees may be older.
        path = self._of_rank_zero(lambda: latest_checkpoint(self.job.run / "checkpoints"))
        state = None
        if path:
            state = self._state(path)
            check_same(self._identity, state["identity"], path)
        method, options = self._new_method(state), self.config.training
        run = Training(
            method,
            LoopOptions(
                seed=self.config.seed,
                log_steps=options.log_steps,
                checkpoint_steps=options.checkpoint_steps,
                average_decay=average_decay(self.config),
            ),
        )
        if state:
            run.load_state_dict(state)
        if self.rank == 0:
            remove_partial_files(self.job.run / "checkpoints")
            forget_epochs_after(self.job.run, run.epochs_done)
            if path:
                done, total = run.steps_done(len(self.batches)), run.steps(len(self.batches))
                self.terminal.line(f"going on from step {done} of {total} ({path.name})")
        return run

    def _new_method(self, state: dict[str, Any] | None) -> SDN | Gan:
        """The networks with their first weights; a checkpoint knows the weights of the layers."""
        config, options = self.config, self.config.training
        self._teacher = load_teacher(str(self.job.teacher), config.teacher.plan)
        whitening = load_whitening(self.job.whitening) if self.job.whitening else None
        computing = Computing(settled(options.precision), options.compile, self.device)
        if config.method in GANS:
            self._teacher.to(self.device)  # which measures alone
            parts = self.job.locations.parts if self.job.locations else ()
            return new_gan(config, self.train_data, parts, whitening, computing)
        if state:
            weights = stored_weights(state["networks"])
        else:
            weights = self._of_rank_zero(
                lambda: config_weights(config, self._teacher, self.train_data, self.device)
            )
        return new_sdn(config, self._teacher, self.train_data, whitening, weights, computing)

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What the steps of a run depend on, and what must be the same when it goes on."""
        config, job = self.config, self.job
        half_life = config.training.average_half_life
        return {
            "seed": config.seed,
            **method_identity(config),
            "training.batch_size": config.training.batch_size,
            "training.flips": config.training.flips,
            "training.precision": config.training.precision,
            "prepared images": job.images.key,
            "training classes": list(job.split.train),
            "caption embeddings": job.captions.folder.name,
            "teacher": file_hash(job.teacher),
            # Left out where there is none: runs of earlier versions go on.
            **({"whitening": file_hash(job.whitening)} if job.whitening else {}),
            **({"training.average_half_life": half_life} if half_life else {}),
            **({"locations": job.locations.fingerprint} if job.locations else {}),
        }

    def _of_rank_zero(self, make: Callable[[], Value]) -> Value:
        """What rank 0 makes of something, for all workers."""
        if self.context.world_size == 1:
            return make()
        found: list[Any] = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(found, src=0)
        return found[0]

    def _state(self, path: Path) -> dict[str, Any]:
        """What a checkpoint holds; from rank 0 where a worker does not see its machine's files."""
        seen = [True] * self.context.world_size
        if self.context.world_size > 1:
            dist.all_gather_object(seen, path.exists())
        if all(seen):
            return current_state(load_checkpoint(path))
        return self._of_rank_zero(lambda: current_state(load_checkpoint(path)))

    def _on_progress(self, steps: StepProgress) -> bool:
        if self.rank == 0:
            self.context.on_steps(steps)
            self.terminal.progress(
                f"{steps.stage.name} epoch {steps.epoch + 1}/{steps.stage.epochs}",
                steps.steps_done,
                steps.steps,
                f"{steps.images_per_second:.3g} images/s, loss {steps.loss:.3g}",
            )
        return self.rank == 0 and self.terminal.stop_wanted

    def _on_checkpoint(self, run: Training, stage_end: bool) -> None:
        if self.rank == 0:
            state = run.state_dict() | {
                "config": asdict(self.config),
                "identity": self._identity,
            }
            steps = run.steps_done(len(self.batches))
            save_checkpoint(self.job.run / "checkpoints", state, steps, stage_end)
            self._store()
            if stage_end:
                self._wait_for_stage(run)

    def _on_epoch(self, result: EpochResult, run: Training) -> None:
        metrics: dict[str, Any] = {"epoch": result.total_epoch, "stage": result.stage.name}
        self._wait(f"scoring epoch {result.total_epoch}")
        if self.rank == 0:
            generator, last = _generators(run)
            metrics |= {
                "loss": result.loss,
                "images_per_second": result.images_per_second,
                **self._watch(generator, self.watched_name),
                **(self._watch(last, f"last/{self.watched_name}") if last else {}),
                **{f"terms/{name}": value for name, value in result.terms.items()},
            }
            self._record_epoch(metrics, result, generator)
        self.context.on_metrics(metrics)

    def _watch(self, generator: ImageGenerator, part: str) -> dict[str, float]:
        """Scores of a generator on the watched images, each named after the part."""
        scores = evaluate_generator(
            generator,
            self.watched,
            classifier=self.classifier,
            teacher=self._teacher,
            shown=self._shown(self.watched),
        ).scores
        return {f"{part}/{name}": value for name, value in scores.items()}

    def _record_epoch(
        self, metrics: dict[str, Any], result: EpochResult, generator: ImageGenerator
    ) -> None:
        note_epoch(self.job.run, metrics)
        self.terminal.line(
            f"{result.stage.name} epoch {result.epoch + 1}/{result.stage.epochs}: "
            f"{', '.join(telling(metrics, self.watched_name))}"
        )
        stage = result.stage
        pictured = stage.adversarial and stage.draws_pictures
        warning = collapse(metrics, self.watched_name) if pictured else None
        if warning:
            self.terminal.line(warning)
        self.curves.after_epoch()
        if result.total_epoch % self.config.evaluation.sample_epochs == 0:
            sheet = self.job.run / SAMPLES / sheet_name(result.total_epoch)
            self._sample_grid(sheet, generator, spread(self.watched, self._grid_size()))
        if self.recorder:
            record_epoch(self.job.run, metrics, self.recorder, self.job.objective)

    def _grid_size(self) -> int:
        return self.config.evaluation.captions

    def _sample_grid(self, path: Path, generator: ImageGenerator, data: EncodedImages) -> None:
        """Real photographs beside what the generator draws for their first captions."""
        rows = [self.job.images.dataset.rows[i] for i in data.indices]
        if generator.noise_dim:
            batches = draw_samples(generator, data.first_captions(), samples=_GRID_DRAWS)
            drawn = np.concatenate(list(batches)).swapaxes(0, 1)
            headers = ["real", *(f"draw {place + 1}" for place in range(_GRID_DRAWS))]
        else:
            drawn = np.concatenate(list(draw_images(generator, data.first_captions())))[None]
            headers = ["real", "generated"]
        cells = list(zip(data.images[data.indices], *drawn, strict=True))
        captioned_grid(path, [row.captions[0] for row in rows], cells, headers)

    def _shown(self, data: EncodedImages) -> list[Shown] | None:
        """What each image's first caption names, where the data set knows its attributes."""
        if self.config.dataset.name != "synthetic_flowers":
            return None
        rows = self.job.images.dataset.rows
        species = read_species(rows[0].image_path.parents[2])
        return [Shown.of(species[rows[i].class_id], rows[i].captions[0]) for i in data.indices]

    def _finish(self, run: Training) -> None:
        """Score the test classes, once, export the model, and record both."""
        if not self.job.finished:
            self._export(run)
        self._wait("recording in MLflow")
        if self.recorder:
            record_end(self.job.run, self.job.run / MODEL, self.recorder)

    def _export(self, run: Training) -> None:
        scores: dict[str, float] = {}
        generator, last = _generators(run)
        if self.config.evaluation.score_test:
            test = self.job.encoded(self.job.split.test)
            scores = self._score_test(generator, test, baselines=True)
            if last:
                others = self._score_test(last, test, baselines=False)
                scores |= {f"last/{name}": value for name, value in others.items()}
            sheet = self.job.run / SAMPLES / TEST_SHEET
            self._sample_grid(sheet, generator, spread(test, self._grid_size()))
        write_text(self.job.run / "scores.json", json.dumps(scores, indent=1))
        origin = {
            "config": asdict(self.config),
            "split": self.job.split.to_dict(),
            "split_by": "class" if self.job.images.dataset.has_classes else "image",
            "test_scores": scores,
            "tracked": asdict(self.job.tracked) if self.job.tracked else None,
        }
        encoder = self.job.text_encoder
        if last:
            export_model(self.job.run / LAST_MODEL, last, encoder, origin)
        export_model(self.job.run / MODEL, generator, encoder, origin)

    def _score_test(
        self, generator: ImageGenerator, test: EncodedImages, *, baselines: bool
    ) -> dict[str, float]:
        """Scores on the test classes."""
        return evaluate_generator(
            generator,
            test,
            classifier=self.classifier,
            splits=TEST_SPLITS,
            shown=self._shown(test),
            attribute_baselines=baselines,
            on_batch=lambda done, total: self.terminal.progress(
                "scoring the test part", done, total
            ),
        ).scores


def _generators(run: Training) -> tuple[ImageGenerator, ImageGenerator | None]:
    """What a training has come to and, beside an average, the last weights."""
    result, last = run.result, run.method.generator
    assert isinstance(result, ImageGenerator)
    assert isinstance(last, ImageGenerator)
    return result, last if run.average else None
