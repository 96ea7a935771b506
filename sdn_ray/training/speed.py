"""images/s of the training beside plain PyTorch loops over the same modules."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from torch.utils.flop_counter import FlopCounterMode

from sdn_ray.cluster.resources import use_device
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.batches import Batch, EncodedImages, EpochBatches
from sdn_ray.data.scaled import smaller_images, write_smaller
from sdn_ray.distillation.layer_weights import layer_weights
from sdn_ray.distillation.losses import LOSSES
from sdn_ray.distillation.schemes import Stage
from sdn_ray.errors import UserError
from sdn_ray.methods.loop import Hooks, LoopOptions, StepProgress, Training, distill
from sdn_ray.methods.method import Method, Noise
from sdn_ray.methods.precision import Precision
from sdn_ray.methods.sdn import SDN, Computing
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher, load_teacher
from sdn_ray.training.build import new_adversary, new_generator
from sdn_ray.training.checks import check_memory
from sdn_ray.training.gans import new_gan
from sdn_ray.training.gawwn import random_locations
from sdn_ray.training.method_checks import check_method

_WARM_UP_BLOCKS = 1
_FIRST_STEPS = 3
_MATRIX = 4096
_COUNTED = 4  # images whose arithmetic is counted


@dataclass(frozen=True)
class Blocks:
    """What is timed."""

    count: int  # of each measurement
    steps: int  # of each block


def teacher_of_any_weights(config: ExperimentConfig) -> Teacher:
    """The teacher of a configuration; where only a plan names it, with random weights."""
    if config.teacher.weights in (None, "fit", "imagenet"):
        if config.teacher.plan is None:
            raise UserError("teacher.plan: found nothing, expected a plan or teacher.weights FILE")
        plan = Plan.parse(config.teacher.plan)
        check_method(config, plan)
        check_memory(config, plan)
        return Teacher(plan)
    teacher = load_teacher(config.teacher.weights, config.teacher.plan)
    check_method(config, teacher.plan)
    check_memory(config, teacher.plan)
    return teacher


def matrix_rate(device: str, precision: Precision) -> float:
    """FLOP/s of a large matrix product, the median of several."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=dtype) for _ in range(2))
    times = [_timed(lambda: a @ b, device) for _ in range(8)]
    return 2 * _MATRIX**3 / statistics.median(times[2:])


def _timed(work: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _generator(config: ExperimentConfig, teacher: Teacher, stage: Stage) -> Generator:
    generator = new_generator(config, teacher, config.text.embedding_dim)
    if generator.samples != stage.samples:
        generator.grow_samples(stage.samples, noise=0, seed=0)
    return generator


def _method(
    config: ExperimentConfig, teacher: Teacher, stage: Any, precision: Precision, device: str
) -> Method[Any]:
    """The method with one of its stages."""
    computing = Computing(precision, config.training.compile, device)
    data = _data(config, _random_images(config, config.training.batch_size))
    if not isinstance(stage, Stage):
        return new_gan(config, data, (), None, computing, (stage,))
    weights = layer_weights("mean", {}, teacher.plan, config.dataset.image_size)
    generator = _generator(config, teacher, stage)
    adversary = new_adversary(config, teacher, data, config.text.embedding_dim, device)
    return SDN(generator, teacher, (stage,), weights, adversary=adversary, computing=computing)


def _random_images(config: ExperimentConfig, count: int) -> np.ndarray:
    size = config.dataset.image_size
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _data(
    config: ExperimentConfig, images: np.ndarray, smaller: Mapping[int, np.ndarray] | None = None
) -> EncodedImages:
    """Images, each of a class of its own, with a random caption and at random places."""
    width, places = config.text.embedding_dim, np.arange(len(images))
    draws = np.random.default_rng(0)
    return EncodedImages(
        images=images,
        embeddings=draws.standard_normal((len(images), width), dtype=np.float32),
        caption_rows=places[:, None],
        caption_counts=np.ones_like(places),
        indices=places,
        classes=places,
        locations=random_locations(config, len(images)),
        smaller=smaller or {},
    )


def _batch(config: ExperimentConfig, stage: Any, device: str) -> Batch:
    """One batch as the steps of a stage see it, in memory."""
    images, side = _random_images(config, config.training.batch_size), stage.rows.side
    data = _data(config, images, {side: smaller_images(images, side)} if side else None)
    [batch] = _batches(config, data, device).epoch(0, rows=stage.rows)
    return batch


def _batches(config: ExperimentConfig, data: EncodedImages, device: str) -> EpochBatches:
    batch = config.training.batch_size
    return EpochBatches(data, batch_size=batch, seed=0, flips=True, device=device)


def flops_per_image(config: ExperimentConfig, teacher: Teacher, stage: Any) -> float:
    """Arithmetic of one training step, all its passes, for one image."""
    training = replace(config.training, batch_size=_COUNTED, compile=False)
    config = replace(config, training=training)
    step = _step(config, copy.deepcopy(teacher), stage, "fp32", "cpu")
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / _COUNTED


def measured_rates(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Any,
    precision: Precision,
    resources: dict[str, float],
    blocks: Blocks,
) -> dict[str, float]:
    """images/s of the plain loops, before and after, and of sdn_ray.train.

    An adversarial stage has no `plain` loop: a hand-written one would repeat the method.
    """
    device = use_device(resources)
    stage = replace(stage, epochs=1)
    makers = {"tuned": _step} if stage.adversarial else {"plain": _plain_step, "tuned": _step}
    seconds: dict[str, list[float]] = {name: [] for name in makers}

    def loops() -> None:
        for name, own in seconds.items():
            step = makers[name](config, copy.deepcopy(teacher), stage, precision, device)
            own += _timed_blocks(step, device, blocks)

    loops()
    trained = _train_blocks(config, teacher, stage, precision, resources, blocks)
    loops()
    images = config.training.batch_size * blocks.steps
    rates = {name: images / statistics.median(own) for name, own in seconds.items()}
    return rates | {"train": statistics.median(trained)}


def training_rate(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Any,
    precision: Precision,
    resources: dict[str, float],
    seconds: float,
) -> float:
    """images/s of a stage's steps as the training takes them, its data in memory.

    Args:
        config: the experiment.
        teacher: as it was loaded.
        stage: of the method.
        precision: settled.
        resources: of a training worker.
        seconds: for how long about, after the first steps.
    """
    device = use_device(resources)
    method = _method(config, copy.deepcopy(teacher), stage, precision, device)
    step, batch = method.steps(stage, method.begin(stage)), _batch(config, stage, device)

    def steps(count: int) -> float:
        def work() -> None:
            for number in range(count):
                step(batch, Noise(0, number, method.device))

        return _timed(work, device)

    steps(_FIRST_STEPS)  # which may compile
    count = max(1, round(seconds * _FIRST_STEPS / steps(_FIRST_STEPS)))
    return config.training.batch_size * count / steps(count)


def _timed_blocks(step: Callable[[], Any], device: str, blocks: Blocks) -> list[float]:
    """Seconds of each block of steps, after a block to warm up."""

    def block() -> None:
        for _ in range(blocks.steps):
            step()

    count = -(-blocks.count // 2) + _WARM_UP_BLOCKS
    return [_timed(block, device) for _ in range(count)][_WARM_UP_BLOCKS:]


def _plain_step(
    config: ExperimentConfig, teacher: Teacher, stage: Stage, precision: Precision, device: str
) -> Callable[[], None]:
    """A step as one would write it by hand, its data in memory.

    Modules as they were made, Adam with its defaults, autocast for bf16.
    """
    generator, frozen = _generator(config, teacher, stage).to(device), teacher.to(device)
    optimizer = torch.optim.Adam(generator.parameters())
    return _distilling(config, stage, precision, generator, frozen, optimizer, device)


def _step(
    config: ExperimentConfig, teacher: Teacher, stage: Any, precision: Precision, device: str
) -> Callable[[], Any]:
    """A step with modules and optimisers as sdn_ray.train prepares them, its data in memory.

    What is left as the difference to sdn_ray.train is what Ray, the loop and the batches cost. Of
    distillation it is written by hand, of an adversarial stage it is the method's own.
    """
    method = _method(config, teacher, stage, precision, device)
    optimizers = method.begin(stage)
    if isinstance(method, SDN) and not stage.adversarial:
        adam = optimizers["generator"]
        return _distilling(config, stage, precision, method.generator, method.teacher, adam, device)
    step, batch = method.steps(stage, optimizers), _batch(config, stage, device)
    return lambda: step(batch, Noise(0, 0, method.device))


def _distilling(
    config: ExperimentConfig,
    stage: Stage,
    precision: Precision,
    generator: Generator,
    teacher: Teacher,
    optimizer: torch.optim.Optimizer,
    device: str,
) -> Callable[[], None]:
    size, batch = config.dataset.image_size, config.training.batch_size
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    images = normalise(pixels)
    embeddings = torch.randn(batch, config.text.embedding_dim, device=device)
    noise = torch.randn(batch, generator.noise_dim, device=device)
    weights = layer_weights("mean", {}, teacher.plan, size)
    generator.train()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            output = generator(embeddings, noise)
            loss = LOSSES[stage.loss](images, output, weights, teacher).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _train_blocks(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Any,
    precision: Precision,
    resources: dict[str, float],
    blocks: Blocks,
) -> list[float]:
    """images/s of each block of the training loop in a Ray Train worker with its batches."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "work": ray.put((config, copy.deepcopy(teacher).cpu(), stage, precision)),
            "blocks": blocks.count + _WARM_UP_BLOCKS,
            "block_steps": blocks.steps,
            "resources": resources,
            "folder": folder,
        }
        scaling = ScalingConfig(
            num_workers=1, use_gpu="GPU" in resources, resources_per_worker=resources
        )
        TorchTrainer(
            _train_loop,
            train_loop_config=settings,
            scaling_config=scaling,
            run_config=RunConfig(name="benchmark", storage_path=folder),
        ).fit()
        return np.load(Path(folder) / "rates.npy")[_WARM_UP_BLOCKS:].tolist()


def _train_loop(settings: dict[str, Any]) -> None:
    config, teacher, stage, precision = ray.get(settings["work"])
    device = get_device()
    use_device(settings["resources"])
    steps, blocks = settings["block_steps"], settings["blocks"]
    folder, side, smaller = Path(settings["folder"]), stage.rows.side, {}
    count = config.training.batch_size * steps * blocks
    np.save(folder / "images.npy", _random_images(config, count))
    images = np.load(folder / "images.npy", mmap_mode="r")
    if side:
        write_smaller(images, side, folder / "smaller.npy")
        smaller[side] = np.load(folder / "smaller.npy", mmap_mode="r")
    batches = _batches(config, _data(config, images, smaller), str(device))
    method = _method(config, teacher, stage, precision, str(device))
    run = Training(method, LoopOptions(log_steps=steps))
    rates: list[float] = []

    def on_progress(latest: StepProgress) -> bool:
        rates.append(latest.images_per_second)
        return False

    distill(run, batches, Hooks(on_progress=on_progress))
    np.save(folder / "rates.npy", np.array(rates))
