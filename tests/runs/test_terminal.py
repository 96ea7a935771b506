"""What a command shows on terminals of 60 and 80 columns, and in a file."""

import io

import pytest
from rich.console import Console

from sdn_ray.runs.terminal import Display


def display_of(columns, terminal=True):
    file = io.StringIO()
    return Display(Console(file=file, width=columns, force_terminal=terminal)), file


def bar(display):
    """The lines below the printed ones, as text."""
    lines = display.console.render_lines(display._progress.get_renderable())
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@pytest.mark.parametrize("columns", [60, 80])
def test_a_training_takes_one_line(columns):
    display, _ = display_of(columns)
    display.progress("stage_two epoch 5/6", 860, 1000, "397 images/s, loss 1.22")
    [line] = bar(display)
    assert len(line) <= columns
    assert "stage_two epoch 5/6" in line
    assert " 86%" in line
    assert line.endswith("397 images/s, loss 1.22")


def test_what_has_no_room_is_cut_short():
    display, _ = display_of(60)
    display.progress("stage_two epoch 5/6", 86, 100, "a detail of very many words " * 3)
    [line] = bar(display)
    assert len(line) <= 60
    assert line.endswith("…")


def test_a_wait_says_for_what_and_gives_way_to_progress():
    display, file = display_of(60)
    display.wait("starting Ray")
    [line] = bar(display)
    assert line.endswith("starting Ray  0:00")
    display.progress("decoding images", 0, 60)
    [line] = bar(display)
    assert "starting Ray" not in line
    assert line.endswith("decoding images   0%")
    assert file.getvalue() == ""


def test_the_epochs_of_a_run_are_one_way_and_another_work_is_not():
    display, _ = display_of(80)
    display.progress("stage_one epoch 1/2", 10, 100)
    first = display._task
    display.progress("stage_one epoch 2/2", 60, 100)
    assert display._task == first
    display.progress("scoring", 0, 100)
    assert display._task != first
    assert len(display._progress.tasks) == 1


def test_in_a_file_every_wait_is_a_line_once():
    display, file = display_of(80, terminal=False)
    with display:
        for _ in range(2):
            display.wait("scoring epoch 1")
        display.line("done [bold]")
    assert file.getvalue().split() == ["scoring", "epoch", "1", "…", "done", "[bold]"]
