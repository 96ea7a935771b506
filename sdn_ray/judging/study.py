"""What a study is: the files of its folder, read and written.

``study.json`` is all that asking needs: captions, image files, how many raters. ``key.json`` says
which method drew which column, and is read for the report alone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sdn_ray.errors import UserError
from sdn_ray.files import read_json, write_text
from sdn_ray.runs.folder import TrackedRun

STUDY, KEY, IMAGES = "study.json", "key.json", "images"
Question = Literal["quality", "correlation", "match"]
QUESTIONS: dict[Question, str] = {
    "quality": "Which picture looks most like a real photograph? Put them in order, best first.",
    "correlation": "Which picture shows best what the sentence says? Put them in order, best "
    "first.",
    "match": "Which sentence belongs to this picture?",
}
CHOICES = 4  # captions of a match trial
# Written into the study before it begins.
EXCLUSION = (
    "Left out are raters who passed less than 80 % of the attention checks, whose median time a "
    "trial is under 2 seconds, or who, of 10 trials or more, always put the same place first."
)


@dataclass(frozen=True)
class StudyCaption:
    """A caption, and a picture of it by each method."""

    text: str
    class_id: int | None
    images: tuple[str, ...]  # file names under images/, a column a method, as the key has them
    real: str | None = None  # the photograph, where a match trial may show it


@dataclass(frozen=True)
class Gold:
    """An attention check: one picture whose place every attentive rater knows."""

    text: str
    images: tuple[str, ...]  # a column each, one of them replaced
    column: int  # which
    place: Literal["first", "last"]  # of a real photograph, of a scrambled picture


@dataclass(frozen=True)
class Study:
    """What is asked, of whom. No method's name is in it."""

    id: str  # tells it from other studies in one database
    name: str  # of the folder when it was made
    version: str  # of sdn_ray
    created: str  # UTC
    seed: int
    size: int  # pixels a side at which all pictures are kept
    questions: tuple[Question, ...]
    methods: int
    raters: int  # among whom the captions are dealt
    raters_per_caption: int
    common: int  # the first so many captions are everyone's
    captions: tuple[StudyCaption, ...]
    gold: tuple[Gold, ...]
    exclusion: str = EXCLUSION

    @property
    def ranked(self) -> tuple[Question, ...]:
        """The questions whose answer is an order."""
        return tuple(question for question in self.questions if question != "match")


@dataclass(frozen=True)
class Key:
    """Who drew what."""

    secret: str  # of the file names, hexadecimal
    methods: tuple[str, ...]  # of the columns
    reference: str  # the data set's name
    models: tuple[str | None, ...]  # hash of each method's folder as it was
    tracked: tuple[TrackedRun | None, ...]  # MLflow run of each, if known


def write_study(folder: Path, study: Study, key: Key) -> None:
    """Write the two files."""
    write_text(folder / KEY, json.dumps(asdict(key), indent=1))
    write_text(folder / STUDY, json.dumps(asdict(study), indent=1, ensure_ascii=False))


def read_study(folder: Path) -> Study:
    """The study of a folder.

    Raises:
        UserError: there is none, or its file was spoiled.
    """
    path = folder / STUDY
    study = read_json(path, Study, "the folder that `python -m sdn_ray.study create` made")
    lists: Mapping[str, list[tuple[str, ...]]] = {
        "captions": [caption.images for caption in study.captions],
        "gold": [gold.images for gold in study.gold],
    }
    for name, groups in lists.items():
        for place, images in enumerate(groups):
            if len(images) != study.methods:
                raise UserError(
                    f"{path}: {name}.{place} has {len(images)} images, expected {study.methods}"
                )
    if not (
        0 <= study.common <= len(study.captions)
        and 1 <= study.raters_per_caption <= study.raters
        and study.methods >= 2
        and study.seed >= 0
    ):
        raise UserError(
            f"{path}: found {study.common} common ones of {len(study.captions)} captions of "
            f"{study.methods} methods, {study.raters_per_caption} of {study.raters} raters a "
            f"caption and the seed {study.seed}; expected two methods, and no more than there are"
        )
    for place, gold in enumerate(study.gold):
        if not 0 <= gold.column < study.methods:
            raise UserError(
                f"{path}: gold.{place}.column: found {gold.column}, expected 0 to "
                f"{study.methods - 1}"
            )
    if "match" in study.questions and any(one.real is None for one in study.captions):
        raise UserError(f"{path}: found match and captions without `real`, expected all with it")
    return study


def read_key(folder: Path, study: Study) -> Key:
    """The key of a folder.

    Raises:
        UserError: there is none, its file was spoiled, or it is another study's.
    """
    path = folder / KEY
    key = read_json(path, Key, "the key that `python -m sdn_ray.study create` wrote")
    counts = {len(key.methods), len(key.models), len(key.tracked)}
    if counts != {study.methods}:
        raise UserError(f"{path}: has not the {study.methods} methods of {STUDY}, expected its key")
    return key


def detectable(rankings: int, methods: int) -> float:
    """The least difference of mean ranks that is found with 80 % power at 5 %.

    δ = 2.80 · √(k (k + 1) / 6 / n), from the variance of a difference of two ranks under weak
    preferences.

    Args:
        rankings: n, of captions of their own.
        methods: k.
    """
    variance = methods * (methods + 1) / 6
    return float(2.80 * (variance / rankings) ** 0.5)


def record(study: Study) -> dict[str, Any]:
    """What a report says of how the study was made."""
    kept = asdict(study)
    return kept | {"captions": len(study.captions), "gold": len(study.gold)}
