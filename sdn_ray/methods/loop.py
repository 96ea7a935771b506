"""The training loop of all methods, in plain PyTorch, on one worker or many."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sdn_ray.data.batches import Batch, EpochBatches
from sdn_ray.methods.averaging import WeightAverage
from sdn_ray.methods.method import RATE_FACTOR, Method, Noise, Stage, Step
from sdn_ray.methods.workers import world_size


class DivergedError(RuntimeError):
    """A loss became NaN or infinite; the message names stage, epoch, step and term."""


@dataclass(frozen=True)
class LoopOptions:
    """How the loop runs; the mathematics is the method's."""

    seed: int = 0  # of the noise
    log_steps: int = 20  # losses leave the device every so many steps
    checkpoint_steps: int | None = None  # None: at the end of every epoch
    average_decay: float | None = None  # of the averaged weights, a step; None keeps no average


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
    terms: dict[str, float]  # batch means, averaged over the epoch; the first add up to the loss
    images_per_second: float


@dataclass
class Hooks:
    """What the caller does at the loop's resting points; every worker calls them."""

    on_progress: Callable[[StepProgress], bool] = lambda report: False  # True: stop
    on_epoch: Callable[[EpochResult, "Training"], None] = lambda report, run: None
    on_checkpoint: Callable[["Training", bool], None] = lambda run, stage_end: None


class Training:
    """A run: a method, its optimisers and position, and all else that a checkpoint carries.

    Args:
        method: what is trained, changed in place.
        options: how.
    """

    def __init__(self, method: Method[Any], options: LoopOptions) -> None:
        self.method, self.options = method, options
        self.device = method.device
        self.position = Position()
        self.optimizers: dict[str, torch.optim.Optimizer] = {}  # between stages there are none
        self.epoch_sum = torch.zeros(0, dtype=torch.float64)  # of the terms, over the epoch so far
        self.average: WeightAverage | None = None  # begins with the first step of each stage
        self.unread: list[Tensor] = []  # terms of the steps since the last report, on the device

    @property
    def result(self) -> nn.Module:
        """What the training has come to: the averaged weights where there are any."""
        return self.average.generator if self.average else self.method.generator

    @property
    def stage(self) -> Stage:
        """The stage in progress."""
        return self.method.stages[self.position.stage]

    @property
    def finished(self) -> bool:
        """Whether all stages are done."""
        return self.position.stage == len(self.method.stages)

    @property
    def epochs_done(self) -> int:
        """Whole epochs done, over all stages."""
        earlier = sum(stage.epochs for stage in self.method.stages[: self.position.stage])
        return earlier + self.position.epoch

    def steps_done(self, epoch_steps: int) -> int:
        """Steps done, over all stages."""
        return self.epochs_done * epoch_steps + self.position.step

    def steps(self, epoch_steps: int) -> int:
        """Steps of the whole run."""
        return sum(stage.epochs for stage in self.method.stages) * epoch_steps

    def state_dict(self) -> dict[str, Any]:
        """All that a later process needs to go on bit for bit."""
        state = {
            "method": self.method.name,
            "networks": self.method.training_state(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "position": asdict(self.position),
            "epoch_sum": self.epoch_sum,
            "random": torch.get_rng_state(),
        }
        if self.average:
            state["average"] = self.average.generator.state_dict()
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same method."""
        self.method.load_training_state(state["networks"])
        self.position = Position(**state["position"])
        self.epoch_sum = state["epoch_sum"]
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        self.average = None
        if "average" in state:
            self.average = WeightAverage(self.method.generator, self.options.average_decay or 0)
            self.average.generator.load_state_dict(state["average"])
        self.optimizers = {}
        if state["optimizers"]:
            self.optimizers = self.method.begin(self.stage)
            for name, one in self.optimizers.items():
                one.load_state_dict(state["optimizers"][name])

    def check_weights(self, stage: Stage) -> None:
        """Refuse weights that a last update spoiled, before anything keeps them.

        Raises:
            DivergedError: when a weight is NaN or infinite.
        """
        for name, parameter in self.method.trained_parameters():
            if not parameter.isfinite().all():
                raise DivergedError(
                    f"the weights {name} became NaN or infinite in stage {stage.name}, epoch "
                    f"{self.position.epoch + 1}, step {self.position.step}. Try a lower learning "
                    f"rate ({stage.rate_options})"
                )

    def begin_stage(self, stage: Stage) -> Step:
        """Make the networks, the optimisers and the average what a stage needs."""
        self.optimizers = self.optimizers or self.method.begin(stage)
        decay, begins = self.options.average_decay, self.position.epoch == self.position.step == 0
        if decay is not None and (begins or self.average is None):
            self.average = WeightAverage(self.method.generator, decay)
        return self.method.steps(stage, self.optimizers)

    def step(self, step: Step, batch: Batch, rate: float, number: int) -> None:
        """One step of the method, the ``number``-th of the run; the losses stay on the device."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get(RATE_FACTOR, 1.0)
        terms = step(batch, Noise(self.options.seed, number, self.device))
        if self.average:
            self.average.update(self.method.generator)
        self.unread.append(terms)

    def read_terms(self, stage: Stage) -> Tensor:
        """Terms of the steps since the last call, averaged over the workers: (steps, terms).

        Raises:
            DivergedError: when one of them is NaN or infinite.
        """
        terms = torch.stack(self.unread)
        workers = world_size()
        if workers > 1:
            dist.all_reduce(terms)
            terms /= workers
        terms = terms.double().cpu()
        bad = (~terms.isfinite()).nonzero()
        if len(bad):
            step, term = bad[0].tolist()
            raise DivergedError(
                f"the loss became {terms[step, term].item()} in stage {stage.name}, epoch "
                f"{self.position.epoch + 1}, step {self.position.step - len(terms) + step + 1}: "
                f"term {self.method.terms(stage)[term]}. Try a lower learning rate "
                f"({stage.rate_options})"
            )
        self.unread.clear()
        self.epoch_sum = terms.sum(0) + (self.epoch_sum if len(self.epoch_sum) else 0)
        return terms


def distill(run: Training, batches: EpochBatches, hooks: Hooks) -> bool:
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
        stage = run.stage
        step = run.begin_stage(stage)
        while run.position.epoch < stage.epochs:
            if _epoch(run, stage, step, batches, hooks):
                hooks.on_checkpoint(run, False)
                return False
            if run.position.epoch < stage.epochs:
                hooks.on_checkpoint(run, False)
        run.position = Position(stage=run.position.stage + 1)
        run.optimizers = {}  # their state does not pass from one stage to the next
        hooks.on_checkpoint(run, True)
    return True


def _epoch(run: Training, stage: Stage, step: Step, batches: EpochBatches, hooks: Hooks) -> bool:
    """The rest of one epoch; True when a hook asked to stop."""
    position = run.position
    steps, total_epoch = len(batches), run.epochs_done
    first_step = position.step
    began = reported = time.perf_counter()
    counted = run.method.losses(stage)
    for batch in batches.epoch(total_epoch, first_step, stage.rows):
        done = position.epoch * steps + position.step
        rate = stage.rate(done, stage.epochs * steps)
        run.step(step, batch, rate, total_epoch * steps + position.step)
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
            loss=terms[:, :counted].sum(1).mean().item(),
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
    names = run.method.terms(stage)
    run.position = Position(position.stage, position.epoch + 1)
    run.epoch_sum = torch.zeros(0, dtype=torch.float64)
    epoch_report = EpochResult(
        stage=stage,
        epoch=position.epoch,
        total_epoch=total_epoch + 1,
        loss=sum(means[:counted]),
        terms=dict(zip(names, means, strict=True)),
        images_per_second=batches.batch_size * (steps - first_step) / elapsed,
    )
    if run.average:
        run.average.settle(run.method.drawn_from(batches.caption_batches()))
    hooks.on_epoch(epoch_report, run)
    return False


def _due(step: int, every: int | None, end: int) -> bool:
    return every is not None and step % every == 0 and step < end


def _agreed(stop: bool, run: Training) -> bool:
    """Whether any worker wants to stop: all must leave the loop at the same step."""
    if world_size() == 1:
        return stop
    wish = torch.tensor(float(stop), device=run.device)
    dist.all_reduce(wish)
    return wish.item() > 0


def current_state(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint as `Training.load_state_dict` reads it; earlier versions knew SDN alone."""
    if "networks" in state:
        return state
    moved = ("generator", "samples", "layer_weights")
    kept = {key: value for key, value in state.items() if key not in (*moved, "optimizer")}
    optimizer = state["optimizer"]
    return kept | {
        "method": "sdn",
        "networks": {key: state[key] for key in moved},
        "optimizers": {} if optimizer is None else {"generator": optimizer},
    }
