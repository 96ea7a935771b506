"""python -m sdn_ray.benchmark: images/s of sdn_ray.train beside a plain loop, in the same run."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from sdn_ray.cluster import start_ray, worker_resources
from sdn_ray.command import run_command
from sdn_ray.config import (
    ExperimentConfig,
    experiment_from,
    experiment_parser,
    parse,
    with_absolute_paths,
)
from sdn_ray.data.batches import EncodedImages, EpochBatches
from sdn_ray.distillation.layer_weights import layer_weights
from sdn_ray.distillation.loop import Distillation, Hooks, LoopOptions, ProgressReport, distill
from sdn_ray.distillation.losses import LOSSES
from sdn_ray.distillation.schemes import Stage
from sdn_ray.errors import UserError
from sdn_ray.models.generator import Generator
from sdn_ray.models.pixels import normalise
from sdn_ray.models.plan import Plan
from sdn_ray.models.teacher import Teacher, load_teacher
from sdn_ray.worker import config_stages, new_generator

DESCRIPTION = (
    "Measure the training of a configuration against a plain PyTorch loop over the same modules "
    "with its data in memory. Pixels and captions are random, and so are the weights of a teacher "
    "that only a plan names: neither changes the speed."
)
_WARM_UP_BLOCKS = 1
_MATRIX = 4096


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = experiment_parser("python -m sdn_ray.benchmark", DESCRIPTION)
    parser.add_argument("--blocks", type=int, default=6, help="Timed blocks of each measurement.")
    parser.add_argument("--block_steps", type=int, default=10, help="Steps of a block.")
    options = parse(parser, arguments)
    if options.blocks < 2 or options.block_steps < 1:
        raise UserError(
            f"--blocks, --block_steps: found {options.blocks} and {options.block_steps}, expected "
            "at least 2 and 1"
        )
    config = with_absolute_paths(experiment_from(options))
    teacher = _teacher(config)
    teacher.plan.check_image_size(config.dataset.image_size)
    start_ray()
    resources = worker_resources(config.training)
    device = "cuda" if "GPU" in resources else "cpu"
    if device == "cpu":
        torch.set_num_threads(int(resources["CPU"]))
    matrix_rate = _matrix_rate(device)
    console = Console()
    title = (
        f"{teacher.plan} at {config.dataset.image_size}×{config.dataset.image_size}, batch "
        f"{config.training.batch_size}, {device}; bf16 matrix product {matrix_rate / 1e9:.0f} "
        "GFLOP/s"
    )
    names = (
        "stage",
        "precision",
        "plain loop",
        "tuned loop",
        "sdn_ray.train",
        "of plain",
        "of tuned",
        "of plain fp32",
        "of bf16 rate",
    )
    table = Table(*names, title=title, title_justify="left")
    for stage in config_stages(config):
        plain_fp32 = None
        flops = _flops_per_image(config, teacher, stage)
        for precision in ("fp32", "bf16"):
            measured = _measure(config, teacher, stage, precision, resources, options)
            plain_fp32 = plain_fp32 or measured["plain"]
            table.add_row(
                stage.name,
                precision,
                f"{measured['plain']:.1f}",
                f"{measured['tuned']:.1f}",
                f"{measured['train']:.1f}",
                f"{measured['train'] / measured['plain']:.3f}",
                f"{measured['train'] / measured['tuned']:.3f}",
                f"{measured['train'] / plain_fp32:.2f}",
                f"{measured['train'] * flops / matrix_rate:.1%}",
            )
    console.print(table)
    console.print(
        "images/s, medians; both loops have their data in memory and are measured before and after "
        "sdn_ray.train. The tuned one prepares modules and optimiser as sdn_ray.train does."
    )
    return 0


def _teacher(config: ExperimentConfig) -> Teacher:
    if config.teacher.weights in (None, "fit", "imagenet"):
        if config.teacher.plan is None:
            raise UserError("teacher.plan: found nothing, expected a plan or teacher.weights FILE")
        return Teacher(Plan.parse(config.teacher.plan))
    return load_teacher(config.teacher.weights, config.teacher.plan)


def _matrix_rate(device: str) -> float:
    """FLOP/s of a large bf16 matrix product, the median of several."""
    a, b = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
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


def _distillation(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Stage,
    precision: str,
    device: str,
    log_steps: int = 1,
) -> Distillation:
    weights = layer_weights("mean", {}, teacher.plan, config.dataset.image_size)
    options = LoopOptions(
        precision=precision, log_steps=log_steps, compile=config.training.compile, device=device
    )
    generator = _generator(config, teacher, stage)
    return Distillation(generator, teacher, (stage,), weights, options)


def _flops_per_image(config: ExperimentConfig, teacher: Teacher, stage: Stage) -> float:
    """Arithmetic of one training step, forward and backward, for one image."""
    size, batch = config.dataset.image_size, 2
    generator = _generator(config, teacher, stage)
    weights = layer_weights("mean", {}, teacher.plan, size)
    images = torch.randn(batch, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        output = generator(torch.randn(batch, config.text.embedding_dim))
        LOSSES[stage.loss](images, output, weights, teacher.cpu()).total.backward()
    return counter.get_total_flops() / batch


def _measure(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Stage,
    precision: str,
    resources: dict[str, float],
    options: Any,
) -> dict[str, float]:
    """images/s of the plain loops, before and after, and of sdn_ray.train."""
    device = "cuda" if "GPU" in resources else "cpu"
    stage = replace(stage, epochs=1)
    seconds: dict[str, list[float]] = {"plain": [], "tuned": []}

    def loops() -> None:
        for name, blocks in seconds.items():
            blocks += _plain_blocks(
                config, teacher, stage, precision, device, options, tuned=name == "tuned"
            )

    loops()
    trained = _train_blocks(config, teacher, stage, precision, resources, options)
    loops()
    images = config.training.batch_size * options.block_steps
    rates = {name: images / statistics.median(blocks) for name, blocks in seconds.items()}
    return rates | {"train": statistics.median(trained)}


def _plain_blocks(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Stage,
    precision: str,
    device: str,
    options: Any,
    *,
    tuned: bool,
) -> list[float]:
    """Seconds of each block of a loop over the same modules, data already in memory.

    As one would write it by hand: modules as they were made, Adam with its defaults, autocast for
    bf16. ``tuned`` prepares modules and optimiser as sdn_ray.train does, which leaves as the
    difference what Ray and the batches cost.
    """
    modules = _distillation(config, copy.deepcopy(teacher), stage, precision, device)
    if tuned:
        generator, frozen = modules.generator, modules.teacher
        optimizer = torch.optim.Adam(generator.parameters(), fused=True)
    else:
        generator, frozen = _generator(config, teacher, stage).to(device), teacher.to(device)
        optimizer = torch.optim.Adam(generator.parameters())
    size, batch = config.dataset.image_size, config.training.batch_size
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    images = normalise(pixels)
    embeddings = torch.randn(batch, config.text.embedding_dim, device=device)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            output = generator(embeddings)
            loss = LOSSES[stage.loss](images, output, modules.weights, frozen).total
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def block() -> None:
        for _ in range(options.block_steps):
            step()

    blocks = -(-options.blocks // 2) + _WARM_UP_BLOCKS
    return [_timed(block, device) for _ in range(blocks)][_WARM_UP_BLOCKS:]


def _train_blocks(
    config: ExperimentConfig,
    teacher: Teacher,
    stage: Stage,
    precision: str,
    resources: dict[str, float],
    options: Any,
) -> list[float]:
    """images/s of each block of the training loop in a Ray Train worker with its batches."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "work": ray.put((config, copy.deepcopy(teacher).cpu(), stage, precision)),
            "blocks": options.blocks + _WARM_UP_BLOCKS,
            "block_steps": options.block_steps,
            "cpus": resources["CPU"],
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
    if device.type == "cpu":
        torch.set_num_threads(int(settings["cpus"]))
    size, batch = config.dataset.image_size, config.training.batch_size
    steps, blocks = settings["block_steps"], settings["blocks"]
    folder = Path(settings["folder"])
    draws = np.random.default_rng(0)
    count = batch * steps * blocks
    np.save(folder / "images.npy", draws.integers(0, 256, (count, size, size, 3), dtype=np.uint8))
    data = EncodedImages(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        embeddings=draws.standard_normal((count, config.text.embedding_dim), dtype=np.float32),
        caption_rows=np.arange(count)[:, None],
        caption_counts=np.ones(count, dtype=np.int64),
        indices=np.arange(count),
    )
    batches = EpochBatches(data, batch_size=batch, seed=0, flips=True, device=device)
    run = _distillation(config, teacher, stage, precision, str(device), steps)
    rates: list[float] = []

    def on_progress(report: ProgressReport) -> bool:
        rates.append(report.images_per_second)
        return False

    distill(run, batches, Hooks(on_progress=on_progress))
    np.save(folder / "rates.npy", np.array(rates))


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
