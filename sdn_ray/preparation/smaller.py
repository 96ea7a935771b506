"""Smaller images of a prepared data set, for the stages that are trained on them: made once."""

from collections.abc import Iterable
from pathlib import Path

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.tasks import Runner
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.scaled import write_smaller
from sdn_ray.files import fingerprint, replacing


def prepare_smaller(
    images: PreparedImages, sides: Iterable[int], runner: Runner, terminal: Terminal
) -> dict[int, Path]:
    """The files of smaller images by their side, see `write_smaller`, made or kept.

    Args:
        images: of the whole data set.
        sides: heights and widths that are wanted.
        runner: where the work is done.
        terminal: where progress is shown.
    """
    paths = {}
    for side in sides:
        paths[side] = images.cache / f"smaller-{fingerprint('smaller', images.key, side)}.npy"
        if not paths[side].exists():
            runner(_make, images, side, paths[side], terminal)
    return paths


def _make(images: PreparedImages, side: int, path: Path, terminal: Terminal) -> None:
    def shown(done: int, total: int) -> None:
        terminal.progress("smaller images", done, total)

    with replacing(path) as partial:
        write_smaller(images.images(), side, partial, shown)
