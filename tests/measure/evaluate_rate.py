"""How `evaluate --model` compares with a plain loop: python -m tests.measure.evaluate_rate.

Both draw and score the same images with the same arithmetic; the plain loop does it in one process
with all cores. Also the peak memory of the command's own process at two numbers of images.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from sdn_ray.data.references import RealImages
from sdn_ray.metrics.scoring import SetScores
from sdn_ray.models.export import load_model
from sdn_ray.scoring.actors import ScoringActor
from sdn_ray.scoring.captions import reference_rows
from sdn_ray.scoring.image_sets import model_entry, open_set, set_batches


def main() -> None:
    """Measure, and print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--classifier", required=True)
    parser.add_argument("--images", type=int, default=11550)
    parser.add_argument("--fewer_images", type=int, default=2000)
    parser.add_argument("--loop_images", type=int, default=2048, help="of the plain loop")
    options = parser.parse_args()
    before = _plain_loop(options)
    steady, whole, memory = _command(options, options.images)
    after = _plain_loop(options)
    plain = (before + after) / 2
    print(f"plain loop {before:.1f} and {after:.1f} images/s, before and after", flush=True)
    print(f"evaluate {steady:.1f} images/s, {steady / plain:.3f} of the plain loop; with imports,")
    print(f"start of Ray, checks and distances {whole:.1f} images/s", flush=True)
    *_, fewer = _command(options, options.fewer_images)
    print(
        f"peak memory of the driver: {memory:.0f} MiB with {options.images} images, {fewer:.0f} "
        f"MiB with {options.fewer_images}: {memory / fewer - 1:+.1%}"
    )


def _plain_loop(options: argparse.Namespace) -> float:
    """images/s in this process."""
    origins = {"model": load_model(options.model).origin}
    _, rows = reference_rows(options.reference, "test", origins)
    real = RealImages.of(rows)
    one = open_set(model_entry(str(options.model)), real, None)
    size = len(one.images)
    work = ScoringActor([size], [str(options.model)], options.classifier, 10, 0)
    batches = set_batches(0, one, real)
    work(batches[0])
    began, done = time.perf_counter(), 0
    with SetScores(size, 10, 0) as scores:
        for batch in batches:
            scores.add(work(batch)[1])
            done += len(batch)
            if done >= options.loop_images:
                break
    return done / (time.perf_counter() - began)


def _command(options: argparse.Namespace, images: int) -> tuple[float, float, float]:
    """images/s once workers have started, and of the whole command; its peak memory in MiB."""
    command = [sys.executable, "-m", "sdn_ray.evaluate", "--model", str(options.model)]
    command += ["--reference", options.reference, "--classifier", options.classifier]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--limit", str(images)], stdout=subprocess.PIPE, text=True
    )
    peak = 0.0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        except (OSError, IndexError):
            pass
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    printed = process.stdout.read()
    assert process.returncode == 0, printed
    [steady] = re.findall(r"([0-9.]+) images/s once", " ".join(printed.split()))
    return float(steady), images / seconds, peak


if __name__ == "__main__":
    main()
