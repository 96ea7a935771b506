"""What the start of a trial costs: python -m tests.measure.trial_start [--trials N].

Seconds from the scheduling of a one-worker trial to its first step, after the first trial, with
the process of the one before it and with a process of its own.
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path

from sdn_ray import tune
from sdn_ray.search import ray_tune
from tests.integration.small import write_config

_LINE = re.compile(r"first steps done ([\d.]+) s after")


def seconds(folder: Path, config: Path, trials: int, *, reuse: bool) -> list[float]:
    """The start of each trial of a small study."""
    ray_tune.REUSE_PROCESSES = reuse
    space = folder / "space.yaml"
    space.write_text(f"seed: {{grid: {list(range(trials))}}}\n")
    study = folder / f"study-{reuse}"
    arguments = ["--config", config, "--space", space, "--output", study, "--training.log_steps", 1]
    arguments += ["--distillation.stage_two.epochs", 1, "--distillation.grow_samples", "false"]
    tune.main([str(argument) for argument in arguments])
    logs = [study / "trials" / f"{number:04d}" / "log.txt" for number in range(trials)]
    return [float(_LINE.search(log.read_text())[1]) for log in logs]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, folder / "cache")
        found = {reuse: seconds(folder, config, trials, reuse=reuse) for reuse in (True, False)}
    for reuse, values in found.items():
        later = values[1:]
        how = "with process reuse" if reuse else "without"
        print(
            f"{how}: first trial {values[0]:.1f} s, later ones median "
            f"{statistics.median(later):.1f} s, at most {max(later):.1f} s"
        )


if __name__ == "__main__":
    main()
