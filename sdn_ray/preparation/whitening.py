"""How captions' embeddings are whitened for the generator: measured once, and kept."""

from pathlib import Path

import numpy as np

from sdn_ray.cluster.progress import Terminal
from sdn_ray.cluster.tasks import Runner
from sdn_ray.config import ExperimentConfig
from sdn_ray.data.prepared import CaptionArrays, PreparedImages
from sdn_ray.data.splits import ClassSplit
from sdn_ray.files import fingerprint
from sdn_ray.preparation.features import feature_maker, maker_hash
from sdn_ray.text.whitening import canonical_whitening

_MOST_IMAGES = 10_000  # spread over the training classes


def prepare_whitening(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    captions: CaptionArrays,
    runner: Runner,
    terminal: Terminal,
) -> Path | None:
    """The file of the whitening of a data set's captions; None where embeddings stay as they are.

    Args:
        config: the experiment.
        images: whose captions.
        split: by class; only images of the training classes are looked at.
        teacher: file of its weights, whose features are looked at unless `text.features` names a
            classifier.
        captions: their embeddings.
        runner: where the work is done.
        terminal: where progress is shown.

    Raises:
        UserError: when the features cannot be had.
    """
    text = config.text
    if not text.whiten:
        return None
    source = maker_hash(text.features, teacher)
    key = fingerprint("whitening", images.key, split.train, captions.folder.name, source)
    path = images.cache / f"whitening-{key}.safetensors"
    if not path.exists():
        runner(_whiten, config, images, split, teacher, captions, path, terminal)
    return path


def _whiten(
    config: ExperimentConfig,
    images: PreparedImages,
    split: ClassSplit,
    teacher: Path,
    captions: CaptionArrays,
    path: Path,
    terminal: Terminal,
) -> None:
    data = captions.encoded(images, split.train)
    chosen = np.linspace(0, len(data) - 1, min(len(data), _MOST_IMAGES)).round().astype(np.int64)
    members = data.indices[chosen]
    features = feature_maker(config, images, split, teacher, terminal)(members)
    terminal.wait("whitening the captions' embeddings")
    rows = [data.caption_rows[member, : data.caption_counts[member]].tolist() for member in members]
    canonical_whitening(data.embeddings, rows, features).save(path)
