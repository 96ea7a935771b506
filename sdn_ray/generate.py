"""python -m sdn_ray.generate: captions to images with an exported model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from rich.progress import track

from sdn_ray.command import run_command
from sdn_ray.config import absolute, parse
from sdn_ray.errors import UserError
from sdn_ray.export import Model, load_model
from sdn_ray.files import replacing, write_text
from sdn_ray.models.drawing import draw_images
from sdn_ray.pictures import captioned_grid

DESCRIPTION = "Draw one image for each caption with a trained model (the `model` folder of a run)."
_GRID_CAPTIONS = 32  # the picture for people; every image is a file of its own as well


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = ArgumentParser(
        prog="python -m sdn_ray.generate", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("--model", type=str, required=True, help="Model folder: RUN/model.")
    parser.add_argument("--text", type=str, help="One caption.")
    parser.add_argument("--captions", type=str, help="File with one caption a line.")
    parser.add_argument("--output", type=str, required=True, help="New folder for the images.")
    options = parse(parser, arguments)
    captions = _captions(options.text, options.captions)
    output = Path(absolute(options.output, "--output"))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(
            f"--output: {output} already holds files; expected a new or empty folder, so that no "
            "image is overwritten"
        )
    model = load_model(Path(absolute(options.model, "--model")))
    generate(model, captions, output)
    print(f"{len(captions)} images in {output}, all on one sheet in {output / 'grid.png'}")
    return 0


def _captions(text: str | None, file: str | None) -> list[str]:
    if (text is None) == (file is None):
        raise UserError("expected either --text or --captions, and not both")
    if text is not None:
        if not text.strip():
            raise UserError("--text: found an empty caption, expected some words")
        return [text.strip()]
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--captions: {file} cannot be read ({error}); expected a UTF-8 text file with one "
            "caption a line"
        ) from error
    empty = [number for number, line in enumerate(lines, 1) if not line.strip()]
    if empty or not lines:
        where = f"an empty line {empty[0]}" if empty else "no line"
        raise UserError(f"--captions: {file} has {where}, expected a caption on every line")
    return [line.strip() for line in lines]


def generate(model: Model, captions: Sequence[str], output: Path) -> None:
    """Write one PNG a caption, in order, `manifest.jsonl` and a captioned `grid.png`.

    Raises:
        UserError: when the model was trained on precomputed embeddings and has no text encoder.
    """
    if model.text_encoder is None:
        raise UserError(
            "--model: this model was trained on precomputed embeddings and has no text encoder; "
            "expected a model trained with text.weights"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    embeddings = model.text_encoder.to(device).encode(captions)
    batches = draw_images(model.generator.to(device), embeddings)
    output.mkdir(parents=True, exist_ok=True)
    names = [f"{number:0{max(5, len(str(len(captions))))}d}.png" for number in range(len(captions))]
    shown: list[np.ndarray] = []
    done = 0
    for batch in track(batches, "drawing", total=-(-len(captions) // 64), transient=True):
        for image in batch:
            with replacing(output / names[done]) as partial:
                Image.fromarray(image).save(partial)
            done += 1
        shown += list(batch[: _GRID_CAPTIONS - len(shown)])
    samples = model.generator.samples
    records = [
        {"file": name, "caption": caption, "sample": place % samples}
        for place, (name, caption) in enumerate(zip(names, captions, strict=True))
    ]
    write_text(output / "manifest.jsonl", "".join(json.dumps(r) + "\n" for r in records))
    captioned_grid(output / "grid.png", captions[: len(shown)], [[image] for image in shown])


if __name__ == "__main__":
    raise SystemExit(run_command(main, None))
