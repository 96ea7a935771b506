import os
from pathlib import Path

import pytest

from tests.material import Material

SHARED = Path(__file__).resolve().parents[2] / "shared"
if "PYTEST_XDIST_WORKER" in os.environ:
    # Of two processes that each take both cores, each slows the other tenfold. Nobody has
    # imported torch yet.
    os.environ["OMP_NUM_THREADS"] = "1"
# Ray gives its workers what other processes leave; beside tests that take a core they would starve.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (so Ray spells it)
# A process without work waits a while for the next test, which else starts one that imports anew.
os.environ["RAY_idle_worker_killing_time_threshold_ms"] = "20000"  # noqa: SIM112
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # reports of tests are no use to Ray


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real photographs, captions and pretrained weights, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data and weights at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def drawn_material(tmp_path_factory) -> Material:
    """Drawn photographs and weights of untrained networks."""
    from tests.drawn import draw_material  # here: it takes seconds to import, and few tests need it

    return draw_material(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session", params=["drawn", "real"] if SHARED.is_dir() else ["drawn"])
def material(request) -> Material:
    """The drawn photographs and weights, and where they are at hand the real ones as well."""
    if request.param == "real":
        return Material.of(SHARED)
    return request.getfixturevalue("drawn_material")


@pytest.fixture(scope="session")
def best_material(request) -> Material:
    """Real photographs and weights where they are at hand, drawn ones elsewhere."""
    if SHARED.is_dir():
        return Material.of(SHARED)
    return request.getfixturevalue("drawn_material")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """An MLflow database that knows no run, to be copied: its tables take seconds to make."""
    from mlflow.tracking import MlflowClient  # here: it takes seconds to import, and few need it

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def small_cache(tmp_path_factory) -> Path:
    """The data cache of the small experiment: prepared by whoever comes first of all processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small_cache"
    folder.mkdir(exist_ok=True)
    return folder
