"""Scores sets of images in one stream of batches through Ray Data."""

import time
from collections.abc import Sequence
from typing import Any

from sdn_ray.cluster.actor_pool import stream
from sdn_ray.data.references import RealImages
from sdn_ray.metrics.scoring import SetScores
from sdn_ray.models.drawing import BATCH
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.actors import ScoringActor
from sdn_ray.scoring.image_sets import ScoredSet, set_batches

IN_PROCESS = 2 * BATCH  # images that are scored before actors would have started


def score_sets(
    sets: Sequence[ScoredSet],
    gathered: Sequence[SetScores],
    real: RealImages | None,
    settings: dict[str, Any],
    workers: int | None,
    display: Display,
) -> None:
    """Score all sets in one stream of batches.

    Args:
        sets: what to score.
        gathered: where the scores of each set are added.
        real: the real images.
        settings: ``classifier``, ``splits``, ``seed`` and perhaps ``colors`` and
            ``compare_size`` of a `ScoringActor`.
        workers: processes; None is one a GPU, or a CPU, and for a few images none.
        display: shows progress.
    """
    batches = [batch for place, one in enumerate(sets) for batch in set_batches(place, one, real)]
    total = sum(len(one.images) for one in sets)
    arguments = settings | {
        "sizes": [len(one.images) for one in sets],
        "models": [str(one.model) if one.model else None for one in sets],
    }
    began, done = time.perf_counter(), 0
    results = stream(
        batches, ScoringActor, arguments, workers, terminal=display, in_process=IN_PROCESS
    )
    for batch, (place, scores) in zip(batches, results, strict=True):
        gathered[place].add(scores)
        if not done:  # the workers have started: from here on it is the rate that will last
            first, since = len(batch), time.perf_counter()
        done += len(batch)
        rate = (done - first) / max(1e-9, time.perf_counter() - since)
        display.progress("scoring", done, total, f"{rate:.0f} images/s")
    display.line(
        f"scored {done} images in {time.perf_counter() - began:.0f} s, {rate:.1f} images/s once "
        "the workers had started"
    )
