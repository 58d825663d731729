"""Brings back names and behaviour of old libraries that the original trainers need, file by file.

A patched file calls `mend(globals())` after its imports. The libraries themselves do not change, except `.cuda()`
without a GPU: the file gets shadows of the modules that it uses, in which some names are as they used to be.
patches/README.md lists the reasons.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import random
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

from hybrid_encoder.data.safe_npy import NpyFile
from hybrid_encoder.errors import UserError

_cpu_only = False


class Shadow(types.ModuleType):
    """A view of a module with some names changed; the module itself does not change."""

    def __init__(self, module: types.ModuleType, **names: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(names)
        self._original = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)


def mend(names: dict[str, Any], **more: Callable[[Any], Any]) -> None:
    """Replaces the modules and classes that a file of an original has imported by shadows.

    A module is recognised by its own name, whatever the file calls it; other modules under that name do not change.

    Args:
        names: the file's `globals()`.
        more: for one host: further names, each with the function that makes its shadow.
    """
    for name, value in list(names.items()):
        if isinstance(value, types.ModuleType) and not isinstance(value, Shadow):
            shadow = more.get(name) or _SHADOWS.get(value.__name__)
            names[name] = value if shadow is None else shadow(value)
        elif name in more and isinstance(value, type):
            names[name] = more[name](value)
        elif value is DataLoader:
            names[name] = OldDataLoader


def stand_in_for_ipython() -> None:
    """Provides an empty module IPython if none is installed: originals import it, but never use it."""
    if "IPython" not in sys.modules and importlib.util.find_spec("IPython") is None:
        absent: Any = types.ModuleType("IPython")
        absent.__spec__ = importlib.machinery.ModuleSpec("IPython", None)
        absent.embed, absent.get_ipython = None, lambda: None  # other libraries ask for the latter
        sys.modules["IPython"] = absent


def use_device(options: Any) -> None:
    """Makes `.cuda()` do nothing under `--no_cuda`, where an original calls it all the same, and on machines without
    CUDA.

    Args:
        options: the original's parsed options.
    """
    global _cpu_only
    _cpu_only = bool(options.no_cuda) or not torch.cuda.is_available()
    if _cpu_only:
        for kind in (Tensor, torch.nn.Module):
            kind.cuda = _stay  # type: ignore[method-assign]


def settle(options: Any, check: Callable[[Any, Any], None]) -> None:
    """Sets the device and, if the clone has them, checks the hybrid encoder's options.

    Args:
        options: the clone's `MonodepthOptions`, with its `parser` and the parsed `options`.
        check: called with parser and parsed options; raises `UserError` for options that contradict each other.
    """
    use_device(options.options)
    if hasattr(options.options, "encoder_option"):
        try:
            check(options.parser, options.options)
        except UserError as error:
            options.parser.error(str(error))


class BeforeEpochStepLR(StepLR):
    """`StepLR` for trainers that step it when an epoch begins, as with torch 1.0: the first call does not count.

    The first call also restores the rate that was asked for, if a loaded optimiser state has changed it.
    """

    _begun = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._begun = False

    def step(self, epoch: int | None = None) -> None:
        """The first call begins epoch 0, each later call the next epoch."""
        if self._begun:
            super().step(epoch)
            return
        self._begun = True
        for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = group["initial_lr"] = rate


def aligned_grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = True
) -> Tensor:
    """`F.grid_sample` with the default of torch 1.0 to 1.2 (align_corners): -1 and 1 are the centres of corner
    pixels."""
    return F.grid_sample(input, grid, mode, padding_mode, align_corners)


class Jitter:
    """A colour jitter that was drawn once, for all images of a sample."""

    def __init__(self, *steps: tuple[str, float]) -> None:
        self.steps = steps

    def __call__(self, image: Any) -> Any:
        """A PIL image or tensor -> the same kind, with the steps applied in order."""
        from torchvision.transforms import functional

        for name, factor in self.steps:
            image = getattr(functional, name)(image, factor)
        return image


def draw_jitter(brightness: Any, contrast: Any, saturation: Any, hue: Any) -> Jitter:
    """`ColorJitter.get_params` as until torchvision 0.8: draws first the factors, then their order, from `random`.

    Args:
        brightness, contrast, saturation, hue: (lowest, highest) each, or None.
    """
    ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    steps = [(f"adjust_{kind}", random.uniform(*span)) for kind, span in ranges.items() if span is not None]
    random.shuffle(steps)
    return Jitter(*steps)


def load_anywhere(file: Any, map_location: Any = "cpu", **settings: Any) -> Any:
    """`torch.load` that loads onto the CPU by default, so that files saved on a GPU open on machines without one."""
    return torch.load(file, map_location=map_location, **settings)


def ragged_array(values: Any, *args: Any, **settings: Any) -> np.ndarray:
    """`np.array` that puts arrays of several sizes into an object array, as numpy did until 1.23."""
    try:
        return np.array(values, *args, **settings)
    except ValueError:
        if args or settings or not isinstance(values, list):
            raise
        ragged = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            ragged[i] = value
        return ragged


class ObjectArchive:
    """An .npz file whose object arrays open without `allow_pickle`: plain arrays are read, no code of the file runs."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __getitem__(self, name: str) -> np.ndarray:
        try:
            found: np.ndarray = self.file[name]
            return found
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
        archive: zipfile.ZipFile = self.file.zip
        try:
            with archive.open(f"{name}.npy") as stream:
                return ragged_array(NpyFile(stream, archive.getinfo(f"{name}.npy").file_size).read())  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(f"{archive.filename}, {name}: {error}; export the ground truth again") from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["file"], name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file)


def load_array(file: Any, *args: Any, **settings: Any) -> Any:
    """`np.load` that opens the object arrays of exported ground truth."""
    loaded = np.load(file, *args, **settings)
    return (
        ObjectArchive(loaded)
        if isinstance(loaded, np.lib.npyio.NpzFile) and not settings.get("allow_pickle")
        else loaded
    )


class OldDataLoader(DataLoader[Any]):
    """A `DataLoader` whose iterators have a method `next`, as until torch 1.12."""

    def __iter__(self) -> Any:
        iterator: Any = super().__iter__()
        iterator.next = iterator.__next__
        return iterator


class LazyAdam:
    """`optim.Adam`; or `clone_networks.adam`, once the clone has imported that module to build hybrid encoders."""

    def __init__(self, adam: Any) -> None:
        self.adam = adam

    def __call__(self, parameters: Any, *args: Any, **settings: Any) -> torch.optim.Optimizer:
        clone_networks = sys.modules.get("hybrid_encoder.adapters.clone_networks")
        make = self.adam if clone_networks is None else clone_networks.adam(self.adam)
        made: torch.optim.Optimizer = make(parameters, *args, **settings)
        return made


def _stay(self: Any, *_: Any, **__: Any) -> Any:
    """In place of `.cuda()`: the tensor or net stays where it is."""
    return self


def shadow_torch(module: Any) -> Shadow:
    """A shadow of torch whose `load` needs no device, and which sees no CUDA under `--no_cuda`."""
    cuda = Shadow(module.cuda, is_available=lambda: not _cpu_only and module.cuda.is_available())
    return Shadow(module, load=load_anywhere, cuda=cuda)


def _transforms(module: Any) -> Shadow:
    class ColorJitter(module.ColorJitter):
        get_params = staticmethod(draw_jitter)

        def forward(self, image: Any) -> Any:
            return draw_jitter(self.brightness, self.contrast, self.saturation, self.hue)(image)

    return Shadow(module, ColorJitter=ColorJitter)


def _torchvision_models(module: Any) -> Shadow:
    layers = (18, 34, 50, 101, 152)
    urls = {f"resnet{n}": getattr(module, f"ResNet{n}_Weights").IMAGENET1K_V1.url for n in layers}
    return Shadow(module, resnet=Shadow(module.resnet, model_urls=urls))


_SHADOWS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda module: Shadow(module, int=int, array=ragged_array, load=load_array),
    "torch": shadow_torch,
    "PIL.Image": lambda module: Shadow(module, ANTIALIAS=module.LANCZOS),
    "torchvision.transforms": _transforms,
    "torchvision.models": _torchvision_models,
}
"""Modules that a file may have imported, each with the function that makes its shadow."""
