"""Ray Data meets the data sets: every image is decoded and resized once, in parallel."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from sdn_ray.cluster.progress import OnProgress, Terminal
from sdn_ray.config import DatasetConfig
from sdn_ray.data.prepared import PreparedImages
from sdn_ray.data.readers.cub import read_cub
from sdn_ray.data.readers.folder import read_folder
from sdn_ray.data.readers.layout import read_class_list
from sdn_ray.data.readers.oxford_flowers import read_oxford_flowers
from sdn_ray.data.readers.records import NAME as FOLDER
from sdn_ray.data.rows import BadItem, CaptionedDataset
from sdn_ray.data.shards import in_shard
from sdn_ray.data.splits import ClassSplit, split_classes
from sdn_ray.data.synthetic.flowers import read_synthetic_flowers, write_synthetic_flowers
from sdn_ray.data.synthetic.species import SPECIES, TEST_CLASSES
from sdn_ray.errors import UserError
from sdn_ray.files import (
    check_writable,
    file_hash,
    fingerprint,
    making_folder,
    read_json,
    user_path,
    write_text,
)
from sdn_ray.preparation.decoding import decoded

DRAWING_VERSION = 2  # to raise with any change to how the embedded data set is drawn or described


def cache_folder(config: DatasetConfig) -> Path:
    """Where prepared arrays, fitted teachers and text encoders are kept."""
    return cache_at(config.cache)


def cache_at(given: str | None) -> Path:
    """The cache in a folder that the user names, or in the default one.

    Raises:
        UserError: it cannot be a folder.
    """
    try:
        folder = user_path(given or "~/.cache/sdn_ray")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file, expected a folder")
        check_writable(folder)
    except UserError as error:
        raise UserError(f"dataset.cache: {error}") from error
    return folder


def read_dataset(config: DatasetConfig, terminal: Terminal) -> CaptionedDataset:
    """The rows of the configured data set; the embedded one is drawn on its first use.

    Args:
        config: which.
        terminal: shows how far the drawing has come.

    Raises:
        UserError: naming the option or file that is wrong.
    """
    cache = cache_folder(config)
    if config.name == "synthetic_flowers":
        if config.root is not None:
            raise UserError(
                f"dataset.root: found {config.root}, expected none for synthetic_flowers, which "
                "is drawn into dataset.cache"
            )
        species = {str(k): asdict(v) for k, v in SPECIES.items()}
        drawn = fingerprint(DRAWING_VERSION, species, TEST_CLASSES)
        root = cache / f"synthetic_flowers-{config.image_size}-{drawn}"
        if not root.is_dir():
            terminal.line(f"drawing the embedded data set into {root}, once")

        def drawn_so_far(done: int, total: int) -> None:
            terminal.progress("drawing the data set", done, total)

        write_synthetic_flowers(root, image_size=config.image_size, on_image=drawn_so_far)
        terminal.wait("reading the data set")
        return read_synthetic_flowers(root)
    if config.root is None:
        own = config.name == FOLDER
        what = "one's own images" if own else f"{config.name} as it unpacks"
        raise UserError(f"dataset.root: found nothing, expected the folder of {what}")
    terminal.wait("reading the data set")
    readers = {"oxford_flowers": read_oxford_flowers, "cub": read_cub, FOLDER: read_folder}
    read = readers[config.name]
    return read(Path(config.root), skip_bad=config.skip_bad)


def dataset_split(dataset: CaptionedDataset, config: DatasetConfig) -> ClassSplit:
    """The zero-shot split of a configuration: by the lists that there are, or a drawn one.

    Raises:
        UserError: naming the option or the list that is wrong.
    """
    if config.test_list is not None:
        dataset = _with_test_list(dataset, config)
    return split_classes(
        dataset,
        validation_classes=config.validation_classes,
        test_classes=config.test_classes,
        seed=config.split_seed,
    )


def _with_test_list(dataset: CaptionedDataset, config: DatasetConfig) -> CaptionedDataset:
    """The data set as if `dataset.test_list` were its own."""
    if config.test_classes is not None:
        raise UserError(
            f"dataset.test_list: found it beside dataset.test_classes {config.test_classes}, "
            "which draws the classes; expected one of them"
        )
    known = {row.class_name: row.class_id for row in dataset.rows}
    try:
        test = set(read_class_list(Path(str(config.test_list)), known).values())
    except UserError as error:
        raise UserError(f"dataset.test_list: {error}") from error
    train = tuple(class_id for class_id in dataset.class_ids if class_id not in test)
    if not train:
        raise UserError(
            f"dataset.test_list: {config.test_list} names all {len(test)} classes, expected some "
            "to be left for training"
        )
    return replace(dataset, train_classes=train, test_classes=tuple(sorted(test)))


def prepare_images(
    dataset: CaptionedDataset,
    image_size: int,
    cache: Path,
    terminal: Terminal,
    *,
    skip_bad: bool = False,
) -> PreparedImages:
    """Decode every image to RGB and resize it whole, in parallel, once.

    Args:
        dataset: whose images.
        image_size: height and width of the result.
        cache: folder where it is kept.
        terminal: shown how far it has come.
        skip_bad: leave out images that do not decode.

    Raises:
        UserError: when an image does not decode, unless ``skip_bad`` leaves it out.
    """
    paths = [row.image_path for row in dataset.rows]
    terminal.wait("looking for images that were decoded before")
    key = fingerprint("images", image_size, _hashes(paths))
    folder = cache / f"images-{key}"
    if not folder.is_dir():
        with making_folder(folder) as unfinished:
            bad = _decode_all(paths, image_size, unfinished / "images.npy", terminal.progress)
            write_text(unfinished / "bad.json", json.dumps(bad))
    bad = read_json(folder / "bad.json", dict[int, str], "why images do not decode, by row")
    if bad and not skip_bad:
        first = min(bad)
        raise UserError(
            f"{paths[first]}: {bad[first]}; expected an image that decodes"
            + (f" (and {len(bad) - 1} more such files)" if len(bad) > 1 else "")
            + ". Use --dataset.skip_bad true to leave bad items out"
        )
    kept = replace(
        dataset,
        rows=tuple(row for i, row in enumerate(dataset.rows) if i not in bad),
        bad_items=(*dataset.bad_items, *(BadItem(paths[i], why) for i, why in bad.items())),
    )
    return PreparedImages(key, kept, folder / "images.npy")


def prepare_configured_images(
    dataset: CaptionedDataset, config: DatasetConfig, terminal: Terminal
) -> PreparedImages:
    """`prepare_images` as a configuration has it; says what `dataset.skip_bad` has left out."""
    images = prepare_images(
        dataset,
        config.image_size,
        cache_folder(config),
        terminal,
        skip_bad=config.skip_bad,
    )
    for item in images.dataset.bad_items:
        terminal.line(f"left out {item.path}: {item.reason}")
    return images


def _hashes(paths: Sequence[Path]) -> list[str]:
    """A hash of each image: of its file, or of the shard that it lies in, and where."""
    places = [in_shard(path) or (path, None) for path in paths]
    files = list(dict.fromkeys(file for file, _ in places))
    with ThreadPoolExecutor(16) as pool:
        hashes = dict(zip(files, pool.map(file_hash, files), strict=True))
    return [f"{hashes[file]}/{inside}" if inside else hashes[file] for file, inside in places]


def _decode_all(
    paths: list[Path], image_size: int, target: Path, on_progress: OnProgress
) -> dict[int, str]:
    """Write the decoded images to ``target``; return the reason for each that does not decode."""
    on_progress("decoding images", 0, len(paths))
    shape = (len(paths), image_size, image_size, 3)
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    bad: dict[int, str] = {}
    done = 0
    for batch in decoded(paths, image_size):
        array[batch["row"]] = batch["image"]
        bad |= {
            int(row): str(error)
            for row, error in zip(batch["row"], batch["error"], strict=True)
            if error
        }
        done += len(batch["row"])
        on_progress("decoding images", done, len(paths))
    array.flush()
    if bad:
        del array
        good = np.delete(np.load(target, mmap_mode="r"), sorted(bad), axis=0)
        np.save(target, good)
    return bad
