"""What every test may rely on: one thread, no network, a home of its own, repeatable examples.

The environment is set before anything imports torch, also in the children that tests start.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="vislang-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

os.environ |= {
    # Several pytest workers share the machine; with two pools of threads each they only wait.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # A test that reaches for the network is a defect: fail at once instead of downloading.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Nothing of the user's is read or written.
    "HOME": str(_HOME),
    "XDG_CACHE_HOME": str(_HOME / "cache"),
    "XDG_CONFIG_HOME": str(_HOME / "config"),
    "HF_HOME": str(_HOME / "huggingface"),
    "TORCH_HOME": str(_HOME / "torch"),
    "MPLCONFIGDIR": str(_HOME / "matplotlib"),
    # gloo looks the host name up, which fails on machines without a resolver.
    "GLOO_SOCKET_IFNAME": "lo",
    "TQDM_MININTERVAL": "1",
    "COLUMNS": "100",
}
for _name in ("VISLANG_TRACEBACK", "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
    os.environ.pop(_name, None)

if os.environ.get("VISLANG_SHAPES", "1") == "1":
    import shape_checks

    shape_checks.install()


def pytest_configure(config: pytest.Config) -> None:
    """One torch thread; hypothesis without deadlines and with the same examples every time."""
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "vislang",
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("vislang")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow.txt, so that `make check` stays under a minute."""
    from slow_tests import read_slow

    slow = read_slow()
    for item in items:
        if item.nodeid.partition("[")[0] in slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real pictures and captions, named by VISLANG_TEST_DATA; without it, skip."""
    named = os.environ.get("VISLANG_TEST_DATA", "")
    if not named:
        pytest.skip("needs real data: set VISLANG_TEST_DATA to its folder")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.skip(f"VISLANG_TEST_DATA={named} is not a folder")
    return folder


@pytest.fixture
def child_environment() -> dict[str, str]:
    """Environment for a child process: this one's, with the package importable."""
    source = Path(__file__).parents[1] / "src"
    path = os.environ.get("PYTHONPATH", "")
    return os.environ | {"PYTHONPATH": f"{source}{os.pathsep + path if path else ''}"}
