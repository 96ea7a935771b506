"""A small study of pictures of one colour each, and requests to its page."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from sdn_ray.data.image_sets import MANIFEST, SetImage, manifest_line
from sdn_ray.data.references import RealImages, source_name
from sdn_ray.data.rows import CaptionedImage
from sdn_ray.judging.materials import Wanted, make_study
from sdn_ray.judging.study import Study
from sdn_ray.scoring.image_sets import Entry

CLASSES = 5
METHODS = {"gan-int-cls": 40, "sdn": 200, "stackgan": 90}  # and how bright each draws
PHOTOGRAPH = 255


@dataclass(frozen=True)
class Made:
    study: Study
    folder: Path
    entries: list[Entry]
    real: RealImages


def photographs(root: Path, count: int) -> RealImages:
    rows = []
    for number in range(count):
        path = root / "jpg" / f"image_{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (PHOTOGRAPH,) * 3).save(path)
        kind = number % CLASSES
        captions = (f"flower <b>{number}</b>", "another")
        rows.append(CaptionedImage(path, kind, f"kind {kind}", captions))
    return RealImages.of(rows)


def drawn(root: Path, name: str, real: RealImages, samples: int = 2) -> Entry:
    """Pictures of every first caption; the first sample has the method's brightness."""
    folder, lines = root / name, []
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number, row in enumerate(real.rows):
        for sample in reversed(range(samples)):
            path = folder / f"{number:05d}_{sample}.png"
            pixels = random.integers(0, 2, (16, 16, 3), np.uint8) + METHODS[name] + 2 * sample
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            source = source_name(row)
            own = SetImage(path, number, None, row.captions[0], source, row.class_id, sample)
            lines.append(manifest_line(own, folder))
    (folder / MANIFEST).write_text("".join(lines))
    return Entry(name, folder)


def small_study(root: Path, **wanted) -> Made:
    options = {"captions": 24, "common": 4, "raters": 4, "raters_per_caption": 2, "size": 32}
    wanted = Wanted(**options | wanted)
    real = photographs(root, wanted.captions + max(1, wanted.captions // 10) + 3)
    entries = [drawn(root, name, real) for name in METHODS]
    study = make_study(root / "study", entries, real, "flowers", wanted)
    return Made(study, root / "study", entries, real)
