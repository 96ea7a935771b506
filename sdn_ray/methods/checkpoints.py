"""Checkpoints on disk: whole or not there."""

from pathlib import Path
from typing import Any

import torch

from sdn_ray.errors import UserError
from sdn_ray.files import replacing

KEPT = 2  # besides the end of each stage

_PREFIX, _STAGE_END = "checkpoint-", "-stage-end"


def save_checkpoint(folder: Path, state: dict[str, Any], steps_done: int, stage_end: bool) -> Path:
    """Write a checkpoint under a temporary name, rename it, and drop those no longer kept.

    The last two stay, and the end of every stage.
    """
    name = f"{_PREFIX}{steps_done:09d}{_STAGE_END if stage_end else ''}.pt"
    with replacing(folder / name) as partial:
        torch.save(state, partial)
    passing = [path for path in _checkpoints(folder) if _STAGE_END not in path.stem]
    recent = _checkpoints(folder)[-KEPT:]
    for path in passing:
        if path not in recent:
            path.unlink()
    return folder / name


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint, None where there is none."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the CPU.

    Raises:
        UserError: when the file has been damaged since.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can fail in any way at all: its opcodes are a program.
    except Exception as error:
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({error}); remove it to go on from the one "
            "before it"
        ) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what a kill in the middle of writing left behind."""
    for path in folder.glob(f".{_PREFIX}*"):
        path.unlink()


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, oldest first; the end of a stage comes after its last epoch."""
    found = folder.glob(f"{_PREFIX}*.pt")
    return sorted(found, key=lambda path: (path.stem.split("-")[1], _STAGE_END in path.stem))
