import io

from rich.console import Console

from sdn_ray.scoring.report import SetReport, print_reports


def report(name, size, score, real, images=60, real_images=20, color_pairs=None, compare_size=None):
    return SetReport(
        name=name,
        images=images,
        size=size,
        compare_size=compare_size,
        classifier="squeezenet1_1",
        pixels="bicubic to 227x227",
        splits=10,
        shuffled_with_seed=0,
        scores=score,
        reference="/data",
        split="test",
        real_images=real_images,
        color_pairs=color_pairs,
        color_images=40,
        real_scores=real,
        kid_subset=20,
        left_out=[],
    )


def printed(*reports):
    file = io.StringIO()
    print_reports(reports, Console(file=file, width=100))
    lines = (line.split() for line in file.getvalue().splitlines())
    return [line for line in lines if line]


NAME = "squeezenet1_1_score"


def test_the_table_has_a_real_row_for_every_size_and_count():
    lines = printed(
        report("sdn", "64×64", {NAME: 2.5, f"{NAME}_std": 0.25}, {NAME: 5.5}),
        report("gan", "256×256", {NAME: 3.5, "ssim": 0.5}, {NAME: 9.75}),
        report("other", "64×64", {NAME: 1.5}, {NAME: 5.5}),
        report("first", "64×64", {NAME: 1.25}, {NAME: 5.25}, images=20),
    )
    rows = lines[lines.index(["sdn", "60", "2.5", "±", "0.25"]) :]
    assert rows == [
        ["sdn", "60", "2.5", "±", "0.25"],
        ["gan", "60", "3.5", "0.5"],
        ["other", "60", "1.5"],
        ["first", "20", "1.25"],
        ["real,", "repeated,", "64×64", "60", "5.5"],
        ["real,", "repeated,", "256×256", "60", "9.75"],
        ["real,", "64×64", "20", "5.25"],
    ]


def test_the_title_says_at_which_size_images_are_compared():
    for size, expected in (
        (None, "seed 0 squeezenet1_1_"),
        (224, "seed 0; SSIM and FSIM at 224×224 squeezenet1_1_"),
    ):
        lines = printed(report("sdn", "64×64", {NAME: 2.5}, {}, compare_size=size))
        assert expected in " ".join(word for line in lines for word in line)


def test_metrics_say_what_they_depend_on():
    found = report("sdn", "64×64", {NAME: 2.5}, {NAME: 5.5}).metrics()
    assert found == {
        "evaluate/images": 60,
        "evaluate/splits": 10,
        f"evaluate/{NAME}": 2.5,
        f"evaluate/real_{NAME}": 5.5,
    }
    more = report("sdn", "64×64", {}, {}, color_pairs=9, compare_size=224).metrics()
    assert (more["evaluate/color_pairs"], more["evaluate/compare_size"]) == (9, 224)


def test_colors_that_no_caption_names_are_told():
    scores = {NAME: 2.5, "color_agreement": 0.5, "color_agreement_of_shuffled_captions": 0.125}
    lines = printed(report("sdn", "64×64", scores, {}, color_pairs=9))
    assert ["sdn", "60", "2.5", "0.5"] in lines  # what is for comparison stands in the file
    lines = printed(report("sdn", "64×64", {NAME: 2.5}, {}, color_pairs=0))
    assert ["sdn:", "no", "caption", "of", "a", "pair", "names", "a", "colour"] in lines
