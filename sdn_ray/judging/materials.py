"""The pictures of a study: chosen, brought to one size, and given names that say nothing."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

import sdn_ray
from sdn_ray.data.decoding import resized
from sdn_ray.data.image_sets import ImageReader, SetImage, read_image_set, read_real
from sdn_ray.data.references import RealImages, source_name
from sdn_ray.errors import UserError
from sdn_ray.files import file_hashes, fingerprint, making_folder, replacing
from sdn_ray.judging.study import (
    CHOICES,
    IMAGES,
    KEY,
    Gold,
    Key,
    Question,
    Study,
    StudyCaption,
    write_study,
)
from sdn_ray.runs.folder import tracked_run
from sdn_ray.scoring.image_sets import Entry

MOST_METHODS = 9  # number keys
_BLOCKS = 8  # a side, into which a picture is cut before they are mixed
_GOLD_SHARE = 10  # captions for one that is made an attention check

_Pair = tuple[str, str]  # source and caption: what one image of each method was drawn for


@dataclass(frozen=True)
class Wanted:
    """What a study is asked to be; the fields are the command's options."""

    captions: int = 1000
    common: int = 50
    raters: int = 10
    raters_per_caption: int = 3
    questions: tuple[Question, ...] = ("quality", "correlation")
    size: int = 256
    seed: int = 0


def check_wanted(wanted: Wanted, methods: int) -> None:
    """Refuse what no study can be.

    Raises:
        UserError: naming the option.
    """
    if not 2 <= methods <= MOST_METHODS:
        raise UserError(
            f"--images: found {methods} methods, expected 2 to {MOST_METHODS} to put in order"
        )
    if wanted.common > wanted.captions:
        raise UserError(
            f"--common: found {wanted.common}, expected at most --captions {wanted.captions}"
        )
    if wanted.raters_per_caption > wanted.raters:
        raise UserError(
            f"--raters_per_caption: found {wanted.raters_per_caption}, expected at most --raters "
            f"{wanted.raters}"
        )
    questions = wanted.questions
    if not {"quality", "correlation"} & set(questions) or len(set(questions)) < len(questions):
        raise UserError(
            f"--questions: found {' '.join(questions)}, expected quality, correlation or both, "
            "each once, and match beside them if wanted"
        )


def make_study(
    folder: Path,
    entries: Sequence[Entry],
    real: RealImages,
    reference: str,
    wanted: Wanted,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Study:
    """Write a study's folder, all or nothing.

    Args:
        folder: to make.
        entries: a folder of drawn images for each method.
        real: the photographs whose captions they were drawn for.
        reference: the data set's name.
        wanted: what it is to be.
        progress: told of captions done and of all.

    Raises:
        UserError: the methods have too few captions in common, or an image cannot be used.
    """
    check_wanted(wanted, len(entries))
    sets = [_first_images(entry, real) for entry in entries]
    classes = {source_name(row): row.class_id for row in real.rows}
    random = np.random.default_rng(wanted.seed)
    golds = max(1, wanted.captions // _GOLD_SHARE)
    pairs = _drawn_pairs(sets, classes, wanted.captions + golds, random)
    if "match" in wanted.questions:
        _check_classes([classes[source] for source, _ in pairs[: wanted.captions]])
    secret = secrets.token_hex(32)
    with making_folder(folder) as partial:
        write = _Writer(partial / IMAGES, secret, wanted.size)
        captions, gold = [], []
        for number, pair in enumerate(pairs):
            progress(number, len(pairs))
            photograph = real.rows[_place(pair[0], real)].image_path
            drawn = [one[pair] for one in sets]
            if number < wanted.captions:
                columns = tuple(write.drawn(one, pair, c) for c, one in enumerate(drawn))
                shown = write.photograph(photograph) if "match" in wanted.questions else None
                captions.append(StudyCaption(pair[1], classes[pair[0]], columns, shown))
                continue
            turn = number - wanted.captions  # both ways, and each column in both
            first, column = turn % 2 == 0, (turn // 2) % len(sets)
            known = (
                write.photograph(photograph)
                if first
                else write.scrambled(drawn[column], pair, column, random)
            )
            columns = tuple(
                known if c == column else write.drawn(one, pair, c) for c, one in enumerate(drawn)
            )
            gold.append(Gold(pair[1], columns, column, "first" if first else "last"))
        progress(len(pairs), len(pairs))
        study = Study(
            id=secrets.token_hex(8),
            name=folder.name,
            version=sdn_ray.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=wanted.seed,
            size=wanted.size,
            questions=wanted.questions,
            methods=len(entries),
            raters=wanted.raters,
            raters_per_caption=wanted.raters_per_caption,
            common=wanted.common,
            captions=tuple(captions),
            gold=tuple(gold),
        )
        write_study(partial, study, _key(entries, reference, secret))
    (folder / KEY).chmod(0o600)  # else whoever can read the folder could look
    return study


def _key(entries: Sequence[Entry], reference: str, secret: str) -> Key:
    return Key(
        secret=secret,
        methods=tuple(entry.name for entry in entries),
        reference=reference,
        models=tuple(fingerprint(file_hashes(entry.folder)) for entry in entries),
        tracked=tuple(tracked_run(entry.origin) for entry in entries),
    )


def _first_images(entry: Entry, real: RealImages) -> dict[_Pair, SetImage]:
    """The first sample of each caption: no picking."""
    if entry.is_model:
        raise UserError(
            f"--images: {entry.folder} is a model; expected a folder of images, which `python -m "
            "sdn_ray.generate --model … --reference …` draws"
        )
    found: dict[_Pair, SetImage] = {}
    for image in sorted(read_image_set(entry.folder), key=lambda image: image.sample):
        place = None if image.source is None else real.find(image.source)
        if place is None:
            raise UserError(
                f"--images: {image}: its source {image.source} is not among the "
                f"{len(real.rows)} real images of --reference; expected one of them"
            )
        row = real.rows[place]
        caption = row.captions[0] if image.caption is None else image.caption
        found.setdefault((source_name(row), caption), image)
    return found


def _place(source: str, real: RealImages) -> int:
    place = real.find(source)
    assert place is not None  # `_first_images` found it
    return place


def _drawn_pairs(
    sets: Sequence[dict[_Pair, SetImage]],
    classes: dict[str, int],
    count: int,
    random: np.random.Generator,
) -> list[_Pair]:
    """Captions that every method drew, as many of each class as there are, in a random order.

    Raises:
        UserError: there are fewer.
    """
    shared = set.intersection(*(set(one) for one in sets))
    if len(shared) < count:
        sizes = ", ".join(str(len(one)) for one in sets)
        raise UserError(
            f"--captions: the methods drew {len(shared)} captions in common (of {sizes}), expected "
            f"{count}, the attention checks among them; give fewer --captions, or draw more"
        )
    by_class: dict[int, list[_Pair]] = {}
    for pair in sorted(shared):
        by_class.setdefault(classes[pair[0]], []).append(pair)
    groups = [[own[i] for i in random.permutation(len(own))] for own in by_class.values()]
    # Each round in an order of its own: raters are dealt to captions in turn, and one order would
    # give each rater a few classes alone.
    rounds = (
        turn[i] for turn in zip_longest(*groups) for i in random.permutation(len(turn)).tolist()
    )
    return list(islice((pair for pair in rounds if pair is not None), count))


def _check_classes(classes: Sequence[int]) -> None:
    if len(set(classes)) < CHOICES:
        raise UserError(
            f"--questions: found match with captions of {len(set(classes))} classes, expected "
            f"{CHOICES} to choose from; give more --captions"
        )


class _Writer:
    """Writes pictures of one size under names that only the secret explains."""

    def __init__(self, folder: Path, secret: str, size: int) -> None:
        self._folder, self._secret, self._size = folder, bytes.fromhex(secret), size
        self._read = ImageReader()
        folder.mkdir()

    def drawn(self, image: SetImage, pair: _Pair, column: int) -> str:
        """A method's picture."""
        return self._write(f"drawn {column} {pair}", self._pixels(image))

    def scrambled(
        self, image: SetImage, pair: _Pair, column: int, random: np.random.Generator
    ) -> str:
        """A method's picture, cut into blocks that are mixed."""
        pixels = self._pixels(image).copy()
        side = self._size // _BLOCKS * _BLOCKS
        blocks = pixels[:side, :side].reshape(_BLOCKS, side // _BLOCKS, _BLOCKS, -1, 3)
        blocks = blocks.swapaxes(1, 2).reshape(_BLOCKS * _BLOCKS, side // _BLOCKS, -1, 3)
        blocks = blocks[random.permutation(len(blocks))]
        mixed = blocks.reshape(_BLOCKS, _BLOCKS, side // _BLOCKS, -1, 3).swapaxes(1, 2)
        pixels[:side, :side] = mixed.reshape(side, side, 3)
        return self._write(f"scrambled {column} {pair}", pixels)

    def photograph(self, path: Path) -> str:
        """A real one."""
        pixels = read_real(path, self._size, self._size)
        return self._write(f"real {path}", pixels)

    def _pixels(self, image: SetImage) -> np.ndarray:
        return resized(self._read(image), self._size, self._size)

    def _write(self, what: str, pixels: np.ndarray) -> str:
        digest = hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()
        name = f"{digest[:32]}.png"
        with replacing(self._folder / name) as partial:
            Image.fromarray(pixels).save(partial)  # of pixels alone: no metadata
            os.utime(partial, (0, 0))  # when it was made would tell which column it is of
        return name
