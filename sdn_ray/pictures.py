"""Pictures that people look at: captioned grids and loss curves."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdn_ray.files import replacing

_CELL = 128  # pixels that an image is shown at, at least
_MARGIN = 8
_FONT_SIZE = 13


def captioned_grid(
    path: Path,
    captions: Sequence[str],
    images: Sequence[Sequence[np.ndarray]],
    headers: Sequence[str] = (),
    columns: int = 4,
) -> None:
    """Write a PNG with one cell a caption: its images side by side, the caption beneath.

    Args:
        path: of the PNG.
        captions: one a cell.
        images: for each caption its images, (height, width, 3) uint8, equally many.
        headers: what the images of a cell are, such as ("real", "generated").
        columns: cells a row.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    per_cell = len(images[0])
    size = max(_CELL, images[0][0].shape[0])
    width = per_cell * size + (per_cell - 1) * 2
    wrapped = [textwrap.wrap(c, max(10, int(width / (_FONT_SIZE * 0.52)))) for c in captions]
    line = _FONT_SIZE + 4
    head = line if headers else 0
    height = head + size + line * max(len(lines) for lines in wrapped) + _MARGIN
    columns = min(columns, len(captions))
    rows = -(-len(captions) // columns)
    sheet = Image.new(
        "RGB",
        (_MARGIN + columns * (width + _MARGIN), _MARGIN + rows * (height + _MARGIN)),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for cell, (lines, group) in enumerate(zip(wrapped, images, strict=True)):
        left = _MARGIN + (cell % columns) * (width + _MARGIN)
        top = _MARGIN + (cell // columns) * (height + _MARGIN)
        for place, image in enumerate(group):
            x = left + place * (size + 2)
            if headers:
                draw.text((x, top), headers[place], fill="gray", font=font)
            shown = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
            sheet.paste(shown, (x, top + head))
        draw.multiline_text(
            (left, top + head + size + 3), "\n".join(lines), fill="black", font=font, spacing=2
        )
    with replacing(path) as partial:
        sheet.save(partial)


def loss_curves(path: Path, epochs: Sequence[dict[str, float]], stages: Sequence[str]) -> None:
    """Write a PNG with the loss of every epoch and, beneath it, the validation scores.

    Args:
        path: of the PNG.
        epochs: metrics of each epoch, by name; those that begin with ``validation/`` are scores.
        stages: the stage of each epoch.
    """
    # Imported here: it takes a second, and only the end of an epoch needs it.
    from matplotlib.figure import Figure

    scores = sorted({n for e in epochs for n in e if n.startswith("validation/")})
    scores = [name for name in scores if not name.endswith("_std")]
    figure = Figure(figsize=(7, 2.2 * (1 + len(scores))), layout="constrained")
    axes = figure.subplots(1 + len(scores), 1, sharex=True, squeeze=False)[:, 0]
    numbers = np.arange(1, len(epochs) + 1)
    for stage in dict.fromkeys(stages):
        own = [i for i, name in enumerate(stages) if name == stage]
        axes[0].plot(numbers[own], [epochs[i]["loss"] for i in own], marker=".", label=stage)
    axes[0].set_ylabel("loss")
    axes[0].legend()
    for axis, name in zip(axes[1:], scores, strict=True):
        axis.plot(numbers, [epoch.get(name, np.nan) for epoch in epochs], marker=".", color="black")
        axis.set_ylabel(name.removeprefix("validation/"))
    axes[-1].set_xlabel("epoch")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
