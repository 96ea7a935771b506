"""A training small enough for tests, and ways to disturb it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil

import sdn_ray.train
from sdn_ray.files import file_hash
from sdn_ray.runs.command_line import run_command

CONFIG = """
dataset:
  name: synthetic_flowers
  image_size: 16
  validation_classes: {validation_classes}
  cache: {cache}
teacher: {{weights: fit, plan: "4,M,8,M,8", fit: {{epochs: 1}}}}
text: {{encoder: words, embedding_dim: 128}}
generator: {{fc_width: 32, upsampling: bilinear}}
distillation:
  scheme: sdn_diverse
  samples: 2
  grow_samples: true
  stage_one: {{epochs: 1, learning_rate: 1.0e-3}}
  stage_two: {{epochs: 2, learning_rate: 1.0e-3}}
  layer_weights: balanced
training:
  {{batch_size: 12, checkpoint_steps: 25, log_steps: 5, cpus_per_worker: 1, average_half_life: 900}}
evaluation: {{images: 16, captions: 4}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db"}}
"""


def write_config(folder: Path, cache: Path, validation_classes: int = 8) -> Path:
    """The small experiment as a file in ``folder``, with a data cache that runs may share.

    The more classes are held out of the 280, the shorter an epoch.
    """
    path = folder / "small.yaml"
    text = CONFIG.format(cache=cache, folder=folder, validation_classes=validation_classes)
    path.write_text(text)
    return path


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
        return run_command(sdn_ray.train.main, [str(argument) for argument in arguments])


def checkpoints(run: Path) -> list[str]:
    """The names of a run's checkpoints."""
    return sorted(path.name for path in (run / "checkpoints").glob("checkpoint-*.pt"))


def wait_for(event: Callable[[], object], process: subprocess.Popen, timeout: float = 240) -> None:
    """Wait until something is true of a command that runs meanwhile."""
    deadline = time.monotonic() + timeout
    while not event():
        assert process.poll() is None, "the command ended before what was waited for"
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(0.02)


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
