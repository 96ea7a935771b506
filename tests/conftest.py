from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs, captions and pretrained weights, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data and weights at {SHARED}")
    return SHARED
