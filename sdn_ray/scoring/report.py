"""The scores of a set of images, with all that a figure depends on written beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Column, Table

from sdn_ray.metrics.classifier_score import ScoreResult, distance_name, score_name
from sdn_ray.metrics.color_agreement import ColorClassifier
from sdn_ray.metrics.scoring import Distances, SetScores
from sdn_ray.models.classifiers import Classifier


@dataclass(frozen=True)
class SetReport:
    """What `evaluate` found of a set, as it stands in its JSON file."""

    name: str
    images: int
    size: str  # height×width of the images, to which real ones are resized
    compare_size: int | None  # pixels a side at which SSIM and FSIM compare; None: `size`
    classifier: str
    pixels: str  # how images become the classifier's input
    splits: int
    shuffled_with_seed: int
    scores: dict[str, float]  # a classifier score carries the classifier's name
    reference: str | None  # the data set that it was compared with
    split: str | None  # its part
    real_images: int
    color_pairs: int | None  # of them, those whose caption names a colour; None: not asked for
    color_images: int | None  # training images that the colour classifier was fitted on
    real_scores: dict[str, float]  # of the real images, at the same count and splits
    kid_subset: int | None  # images of each of the 100 subsets
    left_out: list[str]  # why bad images are not among them

    def metrics(self) -> dict[str, float]:
        """The scores under the names that MLflow shows."""
        real = {f"evaluate/real_{name}": value for name, value in self.real_scores.items()}
        counts = {"evaluate/images": self.images, "evaluate/splits": self.splits}
        if self.color_pairs is not None:
            counts["evaluate/color_pairs"] = self.color_pairs
        if self.compare_size is not None:
            counts["evaluate/compare_size"] = self.compare_size
        return counts | {f"evaluate/{name}": v for name, v in self.scores.items()} | real


def set_report(
    name: str,
    found: SetScores,
    classifier: Classifier,
    options: Any,
    left_out: list[str],
    color_classifier: ColorClassifier | None = None,
) -> SetReport:
    """Put the gathered sums of a set into figures.

    Args:
        name: of the set.
        found: its sums.
        classifier: that made them.
        options: of the command: ``reference``, ``split`` and ``compare_size``.
        left_out: the reasons for bad images.
        color_classifier: that named their colours.
    """
    scores = _score_entries(found.classifier_score(), classifier)
    real_scores = _score_entries(found.classifier_score("real"), classifier)
    distances = found.distances()
    if distances:
        scores |= _distance_entries(distances, classifier)
    pairs = found.pairs()
    colors = found.colors()
    if colors:
        scores |= {
            "color_agreement": colors.agreement,
            "color_agreement_of_shuffled_captions": colors.shuffled,
        }
        real_scores |= {"color_agreement": colors.real}
    variety = found.variety()
    if variety:
        for entries, own in zip((scores, real_scores), variety, strict=True):
            entries |= {"ssim_between_captions": own.mean, "ssim_of_nearest_pair": own.nearest}
    if len(pairs):
        scores |= {"ssim": float(pairs[:, 1].mean()), "fsim": float(pairs[:, 2].mean())}
    return SetReport(
        name=name,
        images=found.images,
        size=", ".join(f"{height}×{width}" for height, width in sorted(found.sizes)),
        compare_size=options.compare_size,
        classifier=classifier.name,
        pixels=classifier.pixels,
        splits=found.splits,
        shuffled_with_seed=found.seed,
        scores=scores,
        reference=options.reference,
        split=options.split if options.reference else None,
        real_images=len(pairs),
        color_pairs=(colors.pairs if colors else 0) if color_classifier else None,
        color_images=color_classifier.images if color_classifier else None,
        real_scores=real_scores,
        kid_subset=distances.kid_subset if distances else None,
        left_out=left_out,
    )


def _score_entries(score: ScoreResult | None, classifier: Classifier) -> dict[str, float]:
    if score is None:
        return {}
    name = score_name(classifier.name)
    return {name: score.mean, f"{name}_std": score.std}


def _distance_entries(distances: Distances, classifier: Classifier) -> dict[str, float]:
    fid, kid = (distance_name(classifier.name, distance) for distance in ("fid", "kid"))
    return {fid: distances.fid, kid: distances.kid, f"{kid}_std": distances.kid_std}


def print_reports(reports: Sequence[SetReport], console: Console | None = None) -> None:
    """Print the table: a row a set, and one for the real images at the count of each."""
    console = console or Console(highlight=False)
    first = reports[0]
    known = dict.fromkeys(name for report in reports for name in report.scores)
    # Of what is there for comparison, the file tells.
    names = [name for name in known if not name.endswith("_std") and "_of_shuffled" not in name]
    table = Table(
        Column("images", no_wrap=True),
        Column("count", no_wrap=True),
        *(Column(_heading(name), overflow="fold") for name in names),
        box=SIMPLE,
        title=_title(first),
        title_justify="left",
        title_style="",
    )
    for report in reports:
        table.add_row(report.name, str(report.images), *_cells(report.scores, names))
    rows: dict[tuple[str, ...], None] = {}
    for report in reports:
        if report.real_scores:
            repeated = "" if report.images == report.real_images else ", repeated"
            cells = (f"real{repeated}, {report.size}", str(report.images))
            rows[(*cells, *_cells(report.real_scores, names))] = None
    for row in rows:  # one, where sets have the same real images, count and size
        table.add_row(*row)
    console.print(table)
    for report in reports:
        if report.color_pairs == 0:
            console.print(f"{report.name}: no caption of a pair names a colour")


def _title(report: SetReport) -> str:
    return (
        f"{report.classifier}, {report.pixels}; {report.splits} splits, shuffled with seed "
        f"{report.shuffled_with_seed}{compared_at(report.compare_size)}"
    )


def compared_at(size: int | None) -> str:
    """The size at which SSIM and FSIM compare, as a title goes on with it."""
    return "" if size is None else f"; SSIM and FSIM at {size}×{size}"


def _heading(name: str) -> str:
    """A name on two lines, so that a terminal of 80 columns shows all of them."""
    classifier, underscore, metric = name.rpartition("_")
    return f"{classifier}{underscore}\n{metric}" if underscore else name


def _cells(scores: dict[str, float], names: Sequence[str]) -> list[str]:
    cells = []
    for name in names:
        value, deviation = scores.get(name), scores.get(f"{name}_std")
        if value is None:
            cells.append("")
        else:
            cells.append(with_deviation(value, deviation))
    return cells


def with_deviation(value: float, deviation: float | None) -> str:
    """A figure as a table shows it."""
    return f"{value:.4g}" + ("" if deviation is None else f" ± {deviation:.2g}")
