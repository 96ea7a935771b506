"""python -m sdn_ray.convert_text: the text encoders and captions that Reed et al. released."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jsonargparse import ArgumentParser

from sdn_ray.data.readers.layout import CAPTION_FOLDER, read_lines
from sdn_ray.errors import UserError
from sdn_ray.files import making_folder
from sdn_ray.runs.command_line import new_output, run_command
from sdn_ray.runs.experiment import absolute, parse
from sdn_ray.text.released import read_class_captions, read_image_captions, read_released_encoder

DESCRIPTION = (
    "Convert what Reed et al. released as Torch7 files: a text encoder (--weights) to a file for "
    "text.weights, or captions (--captions) to the text files that data sets are read with."
)
SUFFIX = ".t7"

# The class, the image and its captions.
_Captions = Iterator[tuple[str, str, Sequence[str]]]


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = parse(_parser(), arguments)
    if (options.weights is None) == (options.captions is None):
        found = "neither" if options.weights is None else "both"
        raise UserError(f"expected one of --weights and --captions; found {found}")
    output = Path(absolute(options.output, "--output"))
    if output.exists():
        raise UserError(f"--output: {output} exists; expected a path where nothing is yet")
    new_output(output)
    if options.weights is not None:
        _convert_weights(options, output)
    else:
        _convert_captions(options, output)
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m sdn_ray.convert_text", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("--weights", type=str, help="Encoder: lm_sje_….t7.")
    parser.add_argument(
        "--captions",
        type=str,
        help="Folder of captions: a folder a class with a .t7 file an image (ICML 2016), or a .t7 "
        "file a class (CVPR 2016).",
    )
    parser.add_argument(
        "--image_list",
        type=str,
        help="For .t7 files of whole classes, which name no images: a file with one image a line, "
        "ending in CLASS/IMAGE.jpg (images.txt of CUB), in the order that the files have.",
    )
    parser.add_argument(
        "--output",
        type=str,
        required=True,
        help="The encoder's .safetensors file, or the folder to hold text_c10.",
    )
    return parser


def _convert_weights(options: Any, output: Path) -> None:
    if options.image_list is not None:
        raise UserError("--image_list: found beside --weights; expected only beside --captions")
    if output.suffix != ".safetensors":
        raise UserError(f"--output: found {output.name}, expected a name that ends in .safetensors")
    encoder = read_released_encoder(absolute(options.weights, "--weights"))
    encoder.save(output)
    print(
        f"{output}: variant {encoder.variant}, embeddings of {encoder.embedding_dim}; "
        f"train with it by --text.weights {output}"
    )


def _convert_captions(options: Any, output: Path) -> None:
    root = Path(absolute(options.captions, "--captions"))
    images = sorted(root.glob(f"*/*{SUFFIX}"))
    classes = sorted(root.glob(f"*{SUFFIX}"))
    if bool(images) == bool(classes):
        found = "both" if images else "neither"
        raise UserError(
            f"--captions: found {found} in {root}, expected either {SUFFIX} files of classes or "
            f"folders of {SUFFIX} files of images"
        )
    if images:
        if options.image_list is not None:
            raise UserError("--image_list: found for files that name their images; leave it out")
        written = _write(_image_files(images), output)
    else:
        written = _write(_class_files(classes, _image_list(options)), output)
    print(f"{written} caption files in {output / CAPTION_FOLDER}")
    if classes and options.image_list is None:
        print(
            "They are numbered in the order of their class, since the files name no images, and no "
            "data set finds them so; name them with --image_list."
        )


def _image_list(options: Any) -> dict[str, list[str]] | None:
    """The images of each class, in order."""
    if options.image_list is None:
        return None
    path = Path(absolute(options.image_list, "--image_list"))
    expected = "an image list, lines that end in CLASS/IMAGE.jpg"
    images: dict[str, list[str]] = {}
    for number, line in read_lines(path, expected):
        image = PurePosixPath(line.split()[-1])
        if not image.parent.name:
            raise UserError(f"{path}, line {number}: found {line}, expected {expected}")
        images.setdefault(image.parent.name, []).append(image.stem)
    return images


def _image_files(paths: Sequence[Path]) -> _Captions:
    for path in paths:
        found = read_image_captions(path)
        yield path.parent.name, found.image, found.captions


def _class_files(paths: Sequence[Path], listed: dict[str, list[str]] | None) -> _Captions:
    for path in paths:
        captions = read_class_captions(path)
        if listed is None:
            names = [f"{place:05d}" for place in range(1, len(captions) + 1)]
        else:
            names = listed.get(path.stem, [])
        if len(names) != len(captions):
            raise UserError(
                f"--image_list: found {len(names)} images of {path.stem}, expected "
                f"{len(captions)}, as {path} has captions for"
            )
        for name, of_image in zip(names, captions, strict=True):
            yield path.stem, name, of_image


def _write(captions: _Captions, output: Path) -> int:
    """Write text_c10/CLASS/IMAGE.txt, one caption a line, all or nothing; the number of files."""
    written: set[Path] = set()
    with making_folder(output) as folder:
        for class_name, image, of_image in captions:
            path = folder / CAPTION_FOLDER / class_name / f"{image}.txt"
            lines = [caption for caption in of_image if caption.strip()]
            name = path.relative_to(folder)
            if name in written:
                raise UserError(f"--captions: found captions of {name} twice, expected once")
            if not lines:
                raise UserError(f"--captions: found no caption for {name}, expected at least one")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            written.add(name)
    return len(written)


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
