"""The original trainers as oracles: their published wheels, imported from a temporary folder, never committed.

The wheels hold the originals without their `datasets`; modules that they import and that are not needed here are
replaced by stubs for the time of the import.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SHA256 = {
    "monodepth2": "b0bdc8ef69795982898e25b7bc8925772a4d5651997c728ada0a6655cbc88d35",
    "manydepth": "25da7b96e59678ed3dd5d7e2aeb3c806b7f8f2c53069b3c3598b8fbf26b4e233",
}
_STUBS = (
    "tensorboardX",
    "IPython",
    "datasets",
    "manydepth.datasets",
    "matplotlib",
    "matplotlib.cm",
    "matplotlib.pyplot",
    "six.moves",
)


def download(host: str, folder: Path) -> Path:
    """The unpacked wheel `host==1.0.0`; skips the test, with the reason, where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), f"{host}==1.0.0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{host}==1.0.0 could not be downloaded in 90 s")
    if done.returncode:
        pytest.skip(f"{host}==1.0.0 could not be downloaded: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob(f"{host}-1.0.0*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert found == SHA256[host], f"{wheel.name} is not the file that this test was written for"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / host)
    return folder / host


@contextmanager
def originals(folder: Path) -> Iterator[None]:
    """Makes an original's modules importable; everything imported meanwhile is forgotten afterwards."""
    before, environment = set(sys.modules), dict(os.environ)
    sys.path.insert(0, str(folder))
    stubbed = [name for name in _STUBS if name not in sys.modules]
    for name in stubbed:
        sys.modules[name] = _Stub(name)
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        own = {name for name in set(sys.modules) - before if _comes_from(sys.modules[name], folder)}
        for name in {*own, *stubbed}:
            sys.modules.pop(name, None)
        os.environ.clear()
        os.environ.update(environment)  # importing an original sets the number of threads


class Original:
    """The modules of one original that hold networks, layers, losses and options."""

    def __init__(self, host: str, folder: Path) -> None:
        self.host = host
        prefix = "manydepth." if host == "manydepth" else ""
        with originals(folder):
            self.networks: Any = importlib.import_module(f"{prefix}networks")
            self.layers: Any = importlib.import_module(f"{prefix}layers")
            self.trainer: Any = importlib.import_module(f"{prefix}trainer")
            self.options: Any = importlib.import_module(f"{prefix}options")


class _Stub(types.ModuleType):
    """A module whose every name exists and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        inner = sys.modules.get(f"{self.__name__}.{name}")
        return inner if inner is not None else lambda *_, **__: None


def _comes_from(module: Any, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)
