"""The training loop: one for every scheme, in plain PyTorch, on one worker or many."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdn_ray.data.batches import Batch, EpochBatches
from sdn_ray.distillation.layer_weights import LayerWeights
from sdn_ray.distillation.losses import LOSSES, term_names
from sdn_ray.distillation.schemes import Stage
from sdn_ray.methods.averaging import WeightAverage
from sdn_ray.methods.precision import Precision
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.teacher import Teacher

Terms = tuple[Tensor, Tensor]  # the loss, and what it is made of
Forward = Callable[[Batch], Terms]
GROWTH_NOISE = 0.1  # of the weights' standard deviation, see Generator.grow_samples


class DivergedError(RuntimeError):
    """A loss became NaN or infinite; the message names stage, epoch, step and term."""


@dataclass(frozen=True)
class LoopOptions:
    """How the loop runs; none of it belongs to the mathematics but the precision."""

    seed: int = 0
    precision: Precision = "fp32"  # bf16: autocast of generator and teacher
    log_steps: int = 20  # losses leave the device every so many steps
    checkpoint_steps: int | None = None  # None: at the end of every epoch
    average_decay: float | None = None  # of the averaged weights, a step; None keeps no average
    compile: bool = False
    device: str = "cpu"


@dataclass
class Position:
    """How far a run has come: everything before it is done."""

    stage: int = 0
    epoch: int = 0  # of the stage
    step: int = 0  # of the epoch


@dataclass(frozen=True)
class StepProgress:
    """What is known every `log_steps` steps."""

    stage: Stage
    epoch: int  # of the stage, from 0
    steps_done: int  # of the run
    steps: int  # of the run
    loss: float  # mean over the last steps
    images_per_second: float  # in these steps


@dataclass(frozen=True)
class EpochResult:
    """What is known at the end of an epoch."""

    stage: Stage
    epoch: int  # of the stage, from 0
    total_epoch: int  # of the run, from 1
    loss: float
    terms: dict[str, float]  # weighted batch means, averaged over the epoch
    images_per_second: float


@dataclass(frozen=True)
class RunningStage:
    """A stage in progress: what its steps need."""

    stage: Stage
    forward: Forward
    optimizer: torch.optim.Optimizer


@dataclass
class Hooks:
    """What the caller does at the loop's resting points; every worker calls them."""

    on_progress: Callable[[StepProgress], bool] = lambda report: False  # True: stop
    on_epoch: Callable[[EpochResult, "Distillation"], None] = lambda report, run: None
    on_checkpoint: Callable[["Distillation", bool], None] = lambda run, stage_end: None


class Distillation:
    """A run: generator, optimiser and position, and all else that a checkpoint carries."""

    def __init__(
        self,
        generator: Generator,
        teacher: Teacher,
        stages: tuple[Stage, ...],
        weights: LayerWeights,
        options: LoopOptions,
    ) -> None:
        self.device = torch.device(options.device)
        generator = generator.to(self.device).to(memory_format=torch.channels_last)
        if self.world_size > 1 and self.device.type == "cuda":
            # Over the whole batch, as one worker would; it exists for GPUs alone.
            generator = nn.SyncBatchNorm.convert_sync_batchnorm(generator)
        self.generator = generator
        # A frozen network needs no float32 master copy under autocast.
        dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
        self.teacher = teacher.to(self.device, dtype).to(memory_format=torch.channels_last)
        self.stages, self.weights, self.options = stages, weights, options
        self.position = Position()
        self.optimizer: torch.optim.Optimizer | None = None  # between stages there is none
        self.epoch_sum = torch.zeros(0, dtype=torch.float64)  # of the terms, over the epoch so far
        self.average: WeightAverage | None = None  # begins with the first step of each stage
        self.unread: list[Tensor] = []  # terms of the steps since the last report, on the device

    @property
    def world_size(self) -> int:
        """The number of workers."""
        return dist.get_world_size() if dist.is_initialized() else 1

    @property
    def normalises_apart(self) -> bool:
        """Whether batch normalisation sees but one worker's part of each batch."""
        apart = self.world_size > 1 and self.device.type != "cuda"
        return apart and self.generator.batch_norm

    @property
    def result(self) -> Generator:
        """What the training has come to: the averaged weights where there are any."""
        return self.average.generator if self.average else self.generator

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return self.position.stage == len(self.stages)

    @property
    def epochs_done(self) -> int:
        """Whole epochs done, over all stages."""
        earlier = sum(stage.epochs for stage in self.stages[: self.position.stage])
        return earlier + self.position.epoch

    def steps_done(self, epoch_steps: int) -> int:
        """Steps done, over all stages."""
        return self.epochs_done * epoch_steps + self.position.step

    def steps(self, epoch_steps: int) -> int:
        """Steps of the whole run."""
        return sum(stage.epochs for stage in self.stages) * epoch_steps

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit."""
        state = {
            "generator": self.generator.state_dict(),
            "samples": self.generator.samples,
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "position": asdict(self.position),
            "epoch_sum": self.epoch_sum,
            "layer_weights": {"layers": list(self.weights.layers), "image": self.weights.image},
            "random": torch.get_rng_state(),
        }
        if self.average:
            state["average"] = self.average.generator.state_dict()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; the generator must have been made with ``state["samples"]``."""
        self.generator.load_state_dict(state["generator"])
        self.position = Position(**state["position"])
        self.epoch_sum = state["epoch_sum"]
        self.weights = stored_weights(state)
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        self.average = None
        if "average" in state:
            self.average = WeightAverage(self.generator, self.options.average_decay or 0)
            self.average.generator.load_state_dict(state["average"])
        self.optimizer = None
        if state["optimizer"] is not None:
            self.optimizer = self._new_optimizer(self.stages[self.position.stage])
            self.optimizer.load_state_dict(state["optimizer"])

    def _new_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.generator.parameters(), lr=stage.learning_rate, fused=True)

    def check_weights(self, stage: Stage) -> None:
        """Refuse weights that a last update spoiled, before anything keeps them.

        Raises:
            DivergedError: when a weight is NaN or infinite.
        """
        for name, parameter in self.generator.named_parameters():
            if not parameter.isfinite().all():
                raise DivergedError(
                    f"the weights {name} became NaN or infinite in stage {stage.name}, epoch "
                    f"{self.position.epoch + 1}, step {self.position.step}. Try a lower learning "
                    f"rate ({stage.option}.learning_rate)"
                )

    def begin_stage(self, stage: Stage) -> RunningStage:
        """Make the generator and the optimiser what a stage needs."""
        if self.generator.samples != stage.samples:
            self.generator.grow_samples(stage.samples, GROWTH_NOISE, self.options.seed)
        self.optimizer = optimizer = self.optimizer or self._new_optimizer(stage)
        decay, begins = self.options.average_decay, self.position.epoch == self.position.step == 0
        if decay is not None and (begins or self.average is None):
            self.average = WeightAverage(self.generator, decay)
        self.generator.train()
        model: nn.Module = self.generator
        if self.world_size > 1:
            model = DistributedDataParallel(self.generator)
        precision = torch.bfloat16 if self.options.precision == "bf16" else None

        def forward(pixels: Tensor, embeddings: Tensor, weights: LayerWeights) -> Terms:
            images = normalise(pixels)
            with torch.autocast(self.device.type, precision, enabled=precision is not None):
                output = model(embeddings)
                loss = LOSSES[stage.loss](images, output, weights, self.teacher)
            return loss.total, loss.terms

        if self.options.compile:
            return RunningStage(stage, self._compiled(forward), optimizer)

        def plain(batch: Batch) -> Terms:
            return forward(batch.images, batch.embeddings, self.weights)

        return RunningStage(stage, plain, optimizer)

    def _compiled(self, forward: Callable[[Tensor, Tensor, LayerWeights], Terms]) -> Forward:
        """Generator, teacher and loss as one compiled graph."""
        # The weights as a tensor, not as numbers in the graph: trials that differ in them share
        # what was compiled.
        values = torch.tensor([*self.weights.layers, self.weights.image], device=self.device)

        def with_values(pixels: Tensor, embeddings: Tensor, values: Tensor) -> Terms:
            *layers, image = values.unbind()
            return forward(pixels, embeddings, LayerWeights(tuple(layers), image))

        torch.compiler.reset()  # graphs of earlier stages count against a limit of recompilations
        compiled = torch.compile(with_values, dynamic=False)
        return lambda batch: compiled(batch.images, batch.embeddings, values)

    def step(self, running: RunningStage, batch: Batch, rate: float) -> None:
        """One step of the optimiser; the losses stay on the device."""
        for group in running.optimizer.param_groups:
            group["lr"] = rate
        total, terms = running.forward(batch)
        running.optimizer.zero_grad(set_to_none=True)
        total.backward()
        running.optimizer.step()
        if self.average:
            self.average.update(self.generator)
        self.unread.append(terms)

    def read_terms(self, stage: Stage) -> Tensor:
        """Terms of the steps since the last call, averaged over the workers: (steps, terms).

        Raises:
            DivergedError: when one of them is NaN or infinite.
        """
        terms = torch.stack(self.unread)
        if self.world_size > 1:
            dist.all_reduce(terms)
            terms /= self.world_size
        terms = terms.double().cpu()
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            step, term = bad[0].tolist()
            name = term_names(stage.loss, self.teacher.plan.names)[term]
            raise DivergedError(
                f"the loss became {terms[step, term].item()} in stage {stage.name}, epoch "
                f"{self.position.epoch + 1}, step {self.position.step - len(terms) + step + 1}: "
                f"term {name}. Try a lower learning rate ({stage.option}.learning_rate)"
            )
        self.unread.clear()
        self.epoch_sum = terms.sum(0) + (self.epoch_sum if len(self.epoch_sum) else 0)
        return terms


def stored_weights(state: dict[str, Any]) -> LayerWeights:
    """The layer weights that a checkpoint carries."""
    weights = state["layer_weights"]
    return LayerWeights(tuple(weights["layers"]), weights["image"])


def distill(run: Distillation, batches: EpochBatches, hooks: Hooks) -> bool:
    """Train from the run's position to the end of its last stage.

    Args:
        run: changed in place.
        batches: this worker's share of every epoch.
        hooks: called by every worker at the same steps.

    Returns:
        Whether the run is finished; False when a hook asked to stop, after a last checkpoint.

    Raises:
        DivergedError: when a loss becomes NaN or infinite. No checkpoint holds that step.
    """
    while not run.finished:
        stage = run.stages[run.position.stage]
        running = run.begin_stage(stage)
        while run.position.epoch < stage.epochs:
            if _epoch(run, running, batches, hooks):
                hooks.on_checkpoint(run, False)
                return False
            if run.position.epoch < stage.epochs:
                hooks.on_checkpoint(run, False)
        run.position = Position(stage=run.position.stage + 1)
        run.optimizer = None  # its state does not pass from one stage to the next
        hooks.on_checkpoint(run, True)
    return True


def _epoch(run: Distillation, running: RunningStage, batches: EpochBatches, hooks: Hooks) -> bool:
    """The rest of one epoch; True when a hook asked to stop."""
    stage, position = running.stage, run.position
    steps, total_epoch = len(batches), run.epochs_done
    first_step = position.step
    began = reported = time.perf_counter()
    for batch in batches.epoch(total_epoch, start=first_step):
        done = position.epoch * steps + position.step
        run.step(running, batch, stage.rate(done, stage.epochs * steps))
        position.step += 1
        checkpoint = _due(position.step, run.options.checkpoint_steps, steps)
        if not (checkpoint or position.step % run.options.log_steps == 0 or position.step == steps):
            continue
        terms = run.read_terms(stage)
        now = time.perf_counter()
        report = StepProgress(
            stage=stage,
            epoch=position.epoch,
            steps_done=run.steps_done(steps),
            steps=run.steps(steps),
            loss=terms.sum(1).mean().item(),
            images_per_second=batches.batch_size * len(terms) / (now - reported),
        )
        if _agreed(hooks.on_progress(report), run):
            run.check_weights(stage)
            return True
        if checkpoint:
            run.check_weights(stage)
            hooks.on_checkpoint(run, False)
        reported = time.perf_counter()
    run.check_weights(stage)
    elapsed = time.perf_counter() - began
    means = (run.epoch_sum / steps).tolist()
    names = term_names(stage.loss, run.teacher.plan.names)
    run.position = Position(position.stage, position.epoch + 1)
    run.epoch_sum = torch.zeros(0, dtype=torch.float64)
    epoch_report = EpochResult(
        stage=stage,
        epoch=position.epoch,
        total_epoch=total_epoch + 1,
        loss=sum(means),
        terms=dict(zip(names, means, strict=True)),
        images_per_second=batches.batch_size * (steps - first_step) / elapsed,
    )
    if run.average:
        run.average.settle(batches.caption_batches())
    hooks.on_epoch(epoch_report, run)
    return False


def _due(step: int, every: int | None, end: int) -> bool:
    return every is not None and step % every == 0 and step < end


def _agreed(stop: bool, run: Distillation) -> bool:
    """Whether any worker wants to stop: all must leave the loop at the same step."""
    if run.world_size == 1:
        return stop
    wish = torch.tensor(float(stop), device=run.device)
    dist.all_reduce(wish)
    return wish.item() > 0
