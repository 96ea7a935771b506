"""A training small enough for tests, and ways to disturb it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, PropertyMock

import psutil
from ray.cluster_utils import Cluster

from sdn_ray.cluster.tasks import run_locally
from sdn_ray.data.synthetic.species import TEST_CLASSES, class_name
from sdn_ray.files import file_hash
from sdn_ray.preparation.images import dataset_split, prepare_configured_images, read_dataset
from sdn_ray.runs.command_line import run_command
from sdn_ray.runs.experiment import experiment_from, experiment_parser
from sdn_ray.runs.folder import read_metrics
from sdn_ray.train import main
from sdn_ray.training.checks import check_experiment
from sdn_ray.training.job import WorkerContext, prepare_job
from sdn_ray.training.worker import run_job

CONFIG = """
dataset:
  name: synthetic_flowers
  image_size: {image_size}
  validation_classes: {validation_classes}
  test_list: {test_list}
  cache: {cache}
teacher: {{weights: fit, plan: "4,M,8,M,8", fit: {{epochs: 1}}}}
text: {{encoder: words, embedding_dim: 128}}
{method}
training:
  {{batch_size: 12, checkpoint_steps: 25, log_steps: 5, cpus_per_worker: 1, average_half_life: 900}}
evaluation: {{images: 16, captions: 4}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""

METHODS = {
    "sdn_diverse": """
generator: {fc_width: 32, upsampling: bilinear}
distillation:
  scheme: sdn_diverse
  samples: 2
  grow_samples: true
  stage_one: {epochs: 1, learning_rate: 1.0e-3}
  stage_two: {epochs: 2, learning_rate: 1.0e-3}
  layer_weights: balanced
""",
    "sdn_adversarial": """
generator: {fc_width: 32, batch_norm: true, noise_dim: 4, modulated: true, activation: leaky_relu}
distillation:
  scheme: sdn_adversarial
  stage_one: {epochs: 0}
  stage_two: {epochs: 1, learning_rate: 1.0e-3}
  stage_three: {epochs: 2, heads_most_width: 8}
  layer_weights: balanced
""",
    "gan_int_cls": """
method: gan_int_cls
gan_int_cls: {epochs: 3, generator_width: 8, discriminator_width: 8, text_width: 8, noise_dim: 4}
""",
    "stackgan": """
method: stackgan
stackgan:
  {first_size: 16, generator_width: 8, discriminator_width: 8, text_width: 8, noise_dim: 4,
   stage_one: {epochs: 2}, stage_two: {epochs: 1}}
""",
    "gawwn": """
method: gawwn
gawwn:
  {generator_width: 8, discriminator_width: 8, text_width: 8, noise_dim: 4,
   keypoint_stage: {epochs: 1}, image_stage: {epochs: 2}}
""",
}
IMAGE_SIZES = {"stackgan": 32, "gawwn": 32}  # others: 16


def write_config(
    folder: Path, cache: Path, validation_classes: int = 40, method: str = "sdn_diverse"
) -> Path:
    """The small experiment as a file in ``folder``, with a data cache that runs may share.

    The more classes are held out of the 312, the shorter an epoch. A fifth of the test classes is
    tested: those of all take longer to score than the training takes.
    """
    path, test_list = folder / "small.yaml", folder / "test_classes.txt"
    test_list.write_text("".join(f"{class_name(one)}\n" for one in TEST_CLASSES[::5]))
    text = CONFIG.format(
        cache=cache,
        folder=folder,
        validation_classes=validation_classes,
        test_list=test_list,
        method=METHODS[method].strip(),
        image_size=IMAGE_SIZES.get(method, 16),
    )
    path.write_text(text)
    return path


def new_cluster(cpus: int) -> Cluster:
    """A Ray whose head has so many cores, without the processes that nobody here asks."""
    quiet = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    return Cluster(initialize_head=True, head_node_args={"num_cpus": cpus} | quiet)


def start(module: str, *arguments: object, log: Path) -> subprocess.Popen:
    """A command, such as sdn_ray.train, in a process group of its own, its output in ``log``."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell's background job ignores SIGINT, and its children would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            cwd=Path(__file__).parents[2],
        )


def train(*arguments: object, log: Path) -> int:
    """Run sdn_ray.train in this process, which has imported it all, with its output in ``log``.

    Returns:
        Its exit status.
    """
    with log.open("a") as file, redirect_stdout(file), redirect_stderr(file):
        return run_command(main, [str(argument) for argument in arguments])


def without_ray_train(
    run_job: Callable[..., bool],
    job: Any,
    workers: int,
    resources: dict[str, float],
    terminal: Any,
    gauges: tuple[str, str],
    *,
    max_failures: int,
) -> bool:
    """Stands for `fit`, whose processes take long to start: the one worker's part in this one."""
    return run_job(job, WorkerContext(terminal, lambda metrics: None, lambda steps: None))


def checkpoints(run: Path) -> list[str]:
    """The names of a run's checkpoints."""
    return sorted(path.name for path in (run / "checkpoints").glob("checkpoint-*.pt"))


def wait_for(
    event: Callable[[], object],
    process: subprocess.Popen,
    timeout: float = 600,
    every: float = 0.1,
) -> None:
    """Wait until something is true of a command that runs meanwhile; ask ``every`` few seconds."""
    deadline = time.monotonic() + timeout
    while not event():
        assert process.poll() is None, "the command ended before what was waited for"
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(every)


def kill_worker(run: Path) -> bool:
    """SIGKILL the training worker of a run; False where it has none (any more)."""
    for process in psutil.process_iter(["cmdline"]):
        if "ray::RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            try:
                files = [file.path for file in process.open_files()]
                if str(run / ".lock") in files:
                    process.kill()
                    return True
            except psutil.Error:
                continue
    return False


def generator_hash(run: Path) -> str:
    """A hash of the bytes of the exported generators, the averaged and the last."""
    hashes = [file_hash(run / name / "generator.safetensors") for name in ("model", "model_last")]
    return " ".join(hashes)


def in_this_process(
    options: Sequence[object], run: Path, stop_wanted: Callable[[], bool] = lambda: False
) -> list[dict[str, Any]]:
    """Train with one worker, which knows no Ray; images that are not decoded yet need a cluster.

    Args:
        options: of sdn_ray.train, without --output.
        run: folder to train in, or to go on in.
        stop_wanted: asked every few steps.

    Returns:
        Its epochs.
    """
    parser = experiment_parser("test", "")
    config = experiment_from(parser.parse_args([str(option) for option in options]))
    check_experiment(config)
    terminal = Mock()
    type(terminal).stop_wanted = PropertyMock(side_effect=stop_wanted)
    dataset = read_dataset(config.dataset, terminal)
    split = dataset_split(dataset, config.dataset)
    images = prepare_configured_images(dataset, config.dataset, terminal)
    job = prepare_job(config, images, split, run_locally, terminal)
    run_job(replace(job, run=run), WorkerContext(terminal, Mock(), Mock()))
    return read_metrics(run)
