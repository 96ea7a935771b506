"""`study create`: from folders of images to a study, with words on the way."""

from pathlib import Path
from typing import Any

from sdn_ray.data.references import RealImages
from sdn_ray.judging.materials import Wanted, check_wanted, make_study
from sdn_ray.judging.study import detectable
from sdn_ray.judging.trials import rater_trials
from sdn_ray.runs.terminal import Display
from sdn_ray.scoring.captions import reference_rows
from sdn_ray.scoring.image_sets import image_entries, origins_of


def create(options: Any, folder: Path, display: Display) -> None:
    """Make the study of a command's options in a new folder.

    Raises:
        UserError: an option, a folder of images or the data set is not as expected.
    """
    wanted = Wanted(
        captions=options.captions,
        common=options.common,
        raters=options.raters,
        raters_per_caption=options.raters_per_caption,
        questions=tuple(options.questions),
        size=options.size,
        seed=options.seed,
    )
    entries = image_entries(options.images)
    check_wanted(wanted, len(entries))
    dataset, rows = reference_rows(options.reference, options.split, origins_of(entries))
    study = make_study(
        folder,
        entries,
        RealImages.of(rows),
        dataset.name,
        wanted,
        lambda done, total: display.progress("pictures", done, total),
    )
    trials = [len(rater_trials(study, slot)) for slot in range(study.raters)]
    display.line(
        f"{len(study.captions)} captions of {study.methods} methods, {len(study.gold)} attention "
        f"checks; {min(trials)} to {max(trials)} trials a rater"
    )
    display.line(
        "single rankings of these captions tell apart mean ranks that differ by "
        f"{detectable(len(study.captions), study.methods):.2f} (80 % power); the report counts "
        "raters and pairs too, and is more cautious"
    )
    display.line(f"{folder}: next `python -m sdn_ray.study serve --study {folder}`")
