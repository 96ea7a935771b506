"""python -m sdn_ray.benchmark: images/s of sdn_ray.train beside a plain loop, in the same run."""

from collections.abc import Sequence
from typing import get_args

from rich.table import Table

from sdn_ray.cluster.resources import runs_on, start_ray, stop_ray, use_device, worker_resources
from sdn_ray.config import ExperimentConfig
from sdn_ray.errors import UserError
from sdn_ray.methods.precision import Precision, fast_precision
from sdn_ray.models.teacher import Teacher
from sdn_ray.runs.command_line import run_command
from sdn_ray.runs.experiment import experiment_from, experiment_parser, parse, with_absolute_paths
from sdn_ray.runs.terminal import Display
from sdn_ray.training.build import method_stages
from sdn_ray.training.speed import (
    Blocks,
    flops_per_image,
    matrix_rate,
    measured_rates,
    teacher_of_any_weights,
)

DESCRIPTION = (
    "Measure the training of a configuration against a plain PyTorch loop over the same modules "
    "with its data in memory. Pixels and captions are random, and so are the weights of a teacher "
    "that only a plan names: neither changes the speed."
)


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = experiment_parser("python -m sdn_ray.benchmark", DESCRIPTION)
    parser.add_argument("--blocks", type=int, default=6, help="Timed blocks of each measurement.")
    parser.add_argument("--block_steps", type=int, default=10, help="Steps of a block.")
    options = parse(parser, arguments)
    blocks = Blocks(options.blocks, options.block_steps)
    if blocks.count < 2 or blocks.steps < 1:
        raise UserError(
            f"--blocks, --block_steps: found {blocks.count} and {blocks.steps}, expected "
            "at least 2 and 1"
        )
    config = with_absolute_paths(experiment_from(options))
    teacher = teacher_of_any_weights(config)
    teacher.plan.check_image_size(config.dataset.image_size)
    with Display() as display:
        start_ray(display)
        resources = worker_resources(config.training)
        display.line(runs_on(resources))
        _measure(config, teacher, resources, blocks, display)
        stop_ray(display)
    return 0


def _measure(
    config: ExperimentConfig,
    teacher: Teacher,
    resources: dict[str, float],
    blocks: Blocks,
    display: Display,
) -> None:
    """Print the table of all stages, in both precisions where the device is fast in both."""
    device = use_device(resources)
    display.wait("measuring a matrix product")
    fast = fast_precision(device)
    precisions = get_args(Precision) if fast == "bf16" else ("fp32",)
    if fast != "bf16":
        display.line("fp32 alone, since this CPU has no fast bf16")
    product = matrix_rate(device, fast)
    title = (
        f"{teacher.plan} at {config.dataset.image_size}×{config.dataset.image_size}, batch "
        f"{config.training.batch_size}, {device}; {fast} matrix product {product / 1e9:.0f} "
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
        f"of {fast} rate",
    )
    table = Table(*names, title=title, title_justify="left")
    for stage in method_stages(config):
        plain_fp32 = None
        flops = flops_per_image(config, teacher, stage)
        for precision in precisions:
            display.wait(f"measuring {stage.name} in {precision}")
            measured = measured_rates(config, teacher, stage, precision, resources, blocks)
            plain = measured.get("plain")
            plain_fp32 = plain_fp32 or plain
            table.add_row(
                stage.name,
                precision,
                f"{plain:.1f}" if plain else "–",
                f"{measured['tuned']:.1f}",
                f"{measured['train']:.1f}",
                f"{measured['train'] / plain:.3f}" if plain else "–",
                f"{measured['train'] / measured['tuned']:.3f}",
                f"{measured['train'] / plain_fp32:.2f}" if plain_fp32 else "–",
                f"{measured['train'] * flops / product:.1%}",
            )
    display.console.print(table)
    display.line(
        "images/s, medians; both loops have their data in memory and are measured before and after "
        "sdn_ray.train. The tuned one prepares modules and optimiser as sdn_ray.train does; of an "
        "adversarial stage, which has no plain one, it takes the method's own step."
    )


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
