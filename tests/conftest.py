"""What tests share: few threads a process, small written scenes, and the real data where it lies beside the checkout.

Fixtures import torch, not this file: with pytest-xdist, the process that hands out the tests loads this file, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Videos that tests decode stay out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRID_ENCODER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with kitti/ and tusimple/ as `hybrid-encoder synth` writes them, small."""
    from hybrid_encoder.synthetic.files import write_synthetic
    from hybrid_encoder.synthetic.settings import SynthSettings

    out = tmp_path_factory.mktemp("synth") / "scenes"
    write_synthetic(out, SynthSettings(3, 4, 5, 96, 320, clips=10, clip_size=(180, 320), progress=False))
    return out


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for what a module's tests share; a run with its states is up to a gigabyte, so it goes with them."""
    path = tmp_path_factory.mktemp("module")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The shared real data; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA
