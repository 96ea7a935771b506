"""Pictures that people look at: captioned grids, comparisons and loss curves."""

import math
import textwrap
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdn_ray.files import replacing

_CELL = 128  # pixels that an image is shown at, at least
_MARGIN = 8
_GAP = 2  # between images side by side
_CAPTION = 192  # width of the captions of `comparison_rows`
_FONT_SIZE = 13
_LEADING = 2  # between lines of text
_BLACK = {"color": "black"}
_PANELS = 4  # of `loss_curves`, side by side
_BANDS = ("#e8eef7", "#f7efe2", "#e9f5e9")  # behind the epochs of a stage

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont  # as `load_default` returns it


def captioned_grid(
    path: Path,
    captions: Sequence[str],
    images: Sequence[Sequence[np.ndarray]],
    headers: Sequence[str] = (),
    columns: int = 4,
) -> None:
    """Write `captioned_sheet` as a PNG to ``path``; its arguments are as there."""
    sheet = captioned_sheet(captions, images, headers, columns)
    with replacing(path) as partial:
        sheet.save(partial)


def captioned_sheet(
    captions: Sequence[str],
    images: Sequence[Sequence[np.ndarray]],
    headers: Sequence[str] = (),
    columns: int = 4,
) -> Image.Image:
    """One picture with a cell a caption: its images side by side, the caption beneath.

    Args:
        captions: one a cell.
        images: for each caption its images, (height, width, 3) uint8, equally many.
        headers: what the images of a cell are, such as ("real", "generated").
        columns: cells a row.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    per_cell = len(images[0])
    size = max(_CELL, images[0][0].shape[0])
    width = per_cell * size + (per_cell - 1) * _GAP
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
            x = left + place * (size + _GAP)
            if headers:
                draw.text((x, top), headers[place], fill="gray", font=font)
            _show(sheet, image, (x, top + head), size)
        _write(draw, "\n".join(lines), (left, top + head + size + 3), font)
    return sheet


def comparison_rows(
    path: Path,
    rows: Sequence[str],
    columns: Sequence[str],
    images: Sequence[Sequence[np.ndarray]],
    *,
    notes: Sequence[Sequence[str]] = (),
    end_captions: Sequence[str] = (),
    caption: str = "",
) -> None:
    """Write a PNG with one row a caption: the caption, then its images side by side.

    The layout of the paper's Figures 3, 4 and 6, and of its others: samples (5), retrieved
    photographs (7), steps between two sentences (8), failures with their scores (9). A row grows
    with its text; captions that are all empty take no room.

    Args:
        path: of the PNG.
        rows: the caption at the left of each row.
        columns: names above the images, such as ("real", "stackgan", "sdn"); may be empty.
        images: for each row its images, (height, width, 3) uint8, equally many. They may differ
            in size: all are shown as squares of the tallest one's height.
        notes: for each row, a text beneath each image, such as "FSIM 0.41"; may be empty.
        end_captions: the caption at the right of each row; may be empty.
        caption: of the whole, beneath it; may be empty.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    size = max(_CELL, *(image.shape[0] for group in images for image in group))
    names = [_wrap(name, size, font) for name in columns]
    starts = [_wrap(caption, _CAPTION, font) for caption in rows]
    ends = [_wrap(caption, _CAPTION, font) for caption in end_captions or [""] * len(rows)]
    below = [[_wrap(note, size, font) for note in group] for group in notes or [()] * len(rows)]
    first = _MARGIN + (_CAPTION + _MARGIN if _tallest(starts) else 0)
    lefts = [first + place * (size + _GAP) for place in range(len(images[0]))]
    right = lefts[-1] + size + _MARGIN
    width = right + (_CAPTION + _MARGIN if _tallest(ends) else 0)
    cells = [size + _tallest(group) for group in below]  # heights of images with their notes
    heights = [max(c, s.height, e.height) for c, s, e in zip(cells, starts, ends, strict=True)]
    top = _MARGIN + _tallest(names)
    bottom = top + sum(heights) + _MARGIN * len(rows)
    foot = _wrap(caption, width - 2 * _MARGIN, font)
    sheet = Image.new("RGB", (width, bottom + foot.height), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, foot.text, (_MARGIN, bottom), font)
    for left, name in zip(lefts, names, strict=bool(names)):
        _centre(draw, name, left, top - name.height, size, font)
    for start, end, group, texts, cell, height in zip(
        starts, ends, images, below, cells, heights, strict=True
    ):
        for left, text in ((_MARGIN, start), (right, end)):
            _write(draw, text.text, (left, top + (height - text.height) // 2), font)
        above = top + (height - cell) // 2
        for left, image in zip(lefts, group, strict=True):
            _show(sheet, image, (left, above), size)
        for left, note in zip(lefts, texts, strict=bool(texts)):
            _centre(draw, note, left, above + size, size, font)
        top += height + _MARGIN
    with replacing(path) as partial:
        sheet.save(partial)


class _Wrapped(NamedTuple):
    """Text broken into lines."""

    text: str
    height: int  # pixels, with a little room above and below; 0 without text


def _wrap(text: str, width: float, font: _Font) -> _Wrapped:
    """Break text into lines of at most ``width`` pixels, between words where it can be."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if font.getlength(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            fitting = bisect_right(
                range(1, len(word)), width, key=lambda n: font.getlength(word[:n])
            )
            lines.append(word[: max(1, fitting)])
            word = word[max(1, fitting) :]
        line = word
    text = "\n".join([*lines, line])
    measure = ImageDraw.Draw(Image.new("1", (1, 1)))
    # With a g, so that the room does not depend on which letters reach below the line.
    bottom = measure.multiline_textbbox((0, 0), f"{text}g", font=font, spacing=_LEADING)[3]
    return _Wrapped(text, math.ceil(bottom) + _MARGIN // 2 if line else 0)


def _tallest(texts: Sequence[_Wrapped]) -> int:
    return max((text.height for text in texts), default=0)


def _show(sheet: Image.Image, image: np.ndarray, corner: tuple[int, int], size: int) -> None:
    shown = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    sheet.paste(shown, corner)


def _write(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], font: _Font) -> None:
    draw.multiline_text(corner, text, fill="black", font=font, spacing=_LEADING)


def _centre(
    draw: ImageDraw.ImageDraw,
    wrapped: _Wrapped,
    left: int,
    top: int,
    width: int,
    font: _Font,
) -> None:
    draw.multiline_text(
        (left + width // 2, top),
        wrapped.text,
        fill="gray",
        font=font,
        anchor="ma",
        align="center",
        spacing=_LEADING,
    )


def loss_curves(
    path: Path,
    epochs: Sequence[dict[str, float]],
    stages: Sequence[str],
    attributes: Sequence[str] = (),
) -> None:
    """Write a PNG with the loss of every epoch and, beside it, the validation scores.

    Each panel says which way is better; the stages are shaded.

    Args:
        path: of the PNG.
        epochs: metrics of each epoch, by name; those that begin with ``validation/`` are scores.
        stages: the stage of each epoch.
        attributes: scores that share a panel, since each says how often one thing is drawn right.
    """
    # Imported here: it takes a second, and only the end of an epoch needs it.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    scores = sorted({n for e in epochs for n in e if n.startswith("validation/")})
    together = [name for name in scores if name.removeprefix("validation/") in attributes]
    alone = [name for name in scores if name not in together and not name.endswith("_std")]
    panels = {"training loss": ["loss"]}
    panels |= {name.removeprefix("validation/"): [name] for name in alone}
    panels |= {"attributes drawn right": together} if together else {}
    columns = min(_PANELS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).flat
    numbers = np.arange(1, len(epochs) + 1)
    for axes, (title, names) in zip(places, panels.items(), strict=False):
        for name in names:
            values = [epoch.get(name, np.nan) for epoch in epochs]
            several = {"label": name.removeprefix("validation/")} if names is together else _BLACK
            axes.plot(numbers, values, marker="o", markersize=3, linewidth=1, **several)
        _shade_stages(axes, stages, label=title == "training loss")
        if names is together:
            axes.set_ylim(-0.03, 1.05 + 0.17 * -(-len(names) // 2))  # room for the legend
            axes.legend(fontsize=7, ncols=2, loc="upper center")
        lower = title == "training loss" or title.endswith("_distance")
        axes.set_title(f"{title} ({'lower' if lower else 'higher'} is better)", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set_xlim(0.5, len(epochs) + 0.5)
    for axes in list(figure.axes)[len(panels) :]:
        axes.remove()
    validation = "; scores of validation classes" if len(panels) > 1 else ""
    figure.supxlabel(f"epoch{validation}", fontsize=8)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)


def _shade_stages(axes: Any, stages: Sequence[str], *, label: bool) -> None:
    """Bands behind the epochs of each stage."""
    for place, stage in enumerate(dict.fromkeys(stages)):
        own = [number for number, name in enumerate(stages, 1) if name == stage]
        axes.axvspan(
            own[0] - 0.5,
            own[-1] + 0.5,
            color=_BANDS[place % len(_BANDS)],
            label=stage if label else None,
            zorder=0,
        )
    if label:
        axes.legend(fontsize=8)
