"""A small data set with boxes and parts, laid out as CUB-200-2011 unpacks."""

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = ("red", "blue", "yellow", "white", "orange", "black")  # of classes; the last two test
PARTS = ("left wing", "right wing", "beak")
_PER_CLASS = 10


def sixty_birds(root: Path) -> Path:
    """Discs of a class's colour on grey, their parts at their left, their right and their middle.

    Returns:
        The folder, ``root``.
    """
    unpacked = root / "CUB_200_2011"
    (unpacked / "parts").mkdir(parents=True)
    folders = {n: f"{n:03d}.{color}" for n, color in enumerate(COLORS, 1)}
    images: dict[int, str] = {}
    boxes, parts, labels = {}, [], {}
    for number in range(1, _PER_CLASS * len(COLORS) + 1):
        class_id = (number - 1) // _PER_CLASS + 1
        color = COLORS[class_id - 1]
        name = f"{folders[class_id]}/bird_{number:04d}"
        images[number], labels[number] = f"{name}.jpg", class_id
        x, y, radius = 16 + 5 * (number % 5), 20 + 3 * (number % 7), 9 + number % 4
        _draw(unpacked / "images" / images[number], color, (x, y, radius))
        captions = root / "text_c10" / f"{name}.txt"
        captions.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"a {color} bird", f"this bird is {color}"]
        captions.write_text("\n".join(lines if number % 2 else reversed(lines)))
        boxes[number] = f"{x - radius}.0 {y - radius}.0 {2 * radius}.0 {2 * radius}.0"
        places = ((x - radius, y), (x + radius, y), (x, y))
        hidden = number % 3  # of one of the parts
        for part, (left, top) in enumerate(places):
            seen = f"{left}.0 {top}.0 1" if part != hidden else "0.0 0.0 0"
            parts.append(f"{number} {part + 1} {seen}\n")
    _write(unpacked / "classes.txt", folders)
    _write(unpacked / "images.txt", images)
    _write(unpacked / "image_class_labels.txt", labels)
    _write(unpacked / "bounding_boxes.txt", boxes)
    _write(unpacked / "parts" / "parts.txt", dict(enumerate(PARTS, 1)))
    (unpacked / "parts" / "part_locs.txt").write_text("".join(parts))
    names = list(folders.values())
    (root / "trainvalclasses.txt").write_text("\n".join(names[:4]))
    (root / "testclasses.txt").write_text("\n".join(names[4:]))
    return root


def _draw(path: Path, color: str, disc: tuple[int, int, int]) -> None:
    """An image of 60×50 pixels."""
    x, y, radius = disc
    image = Image.new("RGB", (60, 50), "gray")
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)


def _write(path: Path, values: Mapping[int, object]) -> None:
    path.write_text("".join(f"{number} {value}\n" for number, value in values.items()))
