"""Counts the memory of a training step of stage 2 by part of the model, for any batch, without computing anything.

    python benchmarks/memory.py [--preset paper] [--height 192 --width 640] [--batch_size 1]

Tensors are PyTorch's fake ones: they have shapes and types, but no values. Counted are parameters, gradients and Adam's
two moments, and what a forward pass leaves alive for the backward pass, by the part whose code has made it. Not
counted: what a single operator takes while it runs, what the allocator holds beside that, and the device's libraries.
Prints a table of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybrid_encoder.commands.measuring import frames_in_memory
from hybrid_encoder.engine.activation_checkpointing import checkpoint_activations
from hybrid_encoder.stage2.model import DepthBatch, MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options

MIB = 2**20
PARTS = {
    "encoder.image_tower": "CLIP's image tower",
    "encoder.dino": "DINO",
    "encoder.language": "text",
    "encoder.fusion": "fusion",
    "encoder": "alignment",
    "depth": "decoder",
    "poses": "pose nets",
    "": "losses",
}
"""Parts of the model by their module; what lies in several belongs to the first of them."""


class Alive(TorchDispatchMode):
    """Notes the storages that are made, with the part of the model that makes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.stack = [""]
        self.given: set[int] = set()
        self.made: dict[int, tuple[StorageWeakRef, int, str]] = {}
        for name in PARTS:
            if name:
                module = model.get_submodule(name)
                module.register_forward_pre_hook(self._enter(name))
                module.register_forward_hook(self._leave, always_call=True)
        encoder = model.get_submodule("encoder")
        inner = encoder.forward_features  # not called as a module

        def forward_features(image: Tensor) -> Any:
            self.stack.append("encoder")
            found = inner(image)
            self.stack.pop()
            return found

        encoder.forward_features = forward_features  # type: ignore[assignment, method-assign]

    def begin(self, given: Iterable[Tensor]) -> None:
        """Forgets what was made; views of the given tensors count as nothing."""
        self.given, self.made = {tensor.untyped_storage()._cdata for tensor in given}, {}

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self.stack.append(name)

    def _leave(self, *_: object) -> None:
        self.stack.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                known = self.made.get(storage._cdata)
                if storage._cdata not in self.given and (known is None or known[0].expired()):
                    self.made[storage._cdata] = StorageWeakRef(storage), storage.nbytes(), self.stack[-1]
        return result

    def mib(self) -> Counter[str]:
        """Of the storages that are alive, by part."""
        found: Counter[str] = Counter()
        for reference, count, part in self.made.values():
            if not reference.expired():
                found[part] += count / MIB
        return found


def build(given: argparse.Namespace, mode: FakeTensorMode) -> MonoDepth:
    """The trainer's nets with fake parameters and buffers."""
    options = Monodepth2Options(preset=given.preset, weights_init="scratch", height=given.height, width=given.width)
    model = MonoDepth(options, options.config(), "random").train()
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            tensors |= {name: mode.from_tensor(tensor) for name, tensor in tensors.items() if tensor is not None}
    return model


def kept(model: MonoDepth, batch: DepthBatch, alive: Alive, precision: str) -> Counter[str]:
    """MiB that a forward pass leaves for the backward pass, by part."""
    alive.begin([*model.parameters(), *model.buffers(), *batch.frames.values(), batch.K, batch.stereo_T])
    with alive, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model(batch)["loss"]
    found = alive.mib()
    del loss
    return found


def part_of(parameter: str) -> str:
    """The part that a parameter of this name belongs to."""
    return next(part for part in PARTS if part == "" or parameter.startswith(f"{part}."))


def fixed(model: MonoDepth) -> tuple[Counter[str], Counter[str]]:
    """MiB of float32 by part: parameters; and their gradients with Adam's two moments, where they are trained."""
    parameters: Counter[str] = Counter()
    training: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        mib = 4 * parameter.numel() / MIB
        parameters[part_of(name)] += mib
        training[part_of(name)] += 3 * mib * parameter.requires_grad
    return parameters, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--batch_size", type=int, default=1)
    given = parser.parse_args()
    print(f"torch {torch.__version__}; {given.preset}, {given.height}x{given.width}, batch {given.batch_size}; MiB\n")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        batch = frames_in_memory(given.batch_size, given.height, given.width)
    model = build(given, mode)
    alive, runs = Alive(model), {}
    with mode:
        for checkpointed in ("", ", checkpointed"):
            if checkpointed:
                checkpoint_activations(model)
            for precision in ("float32", "bf16"):
                runs[precision + checkpointed] = kept(model, batch, alive, precision)
    parameters, training = fixed(model)
    print(f"| part | parameters | gradients and Adam | {' | '.join(f'kept, {name}' for name in runs)} |")
    print("|---|" + "---|" * (2 + len(runs)))
    columns = [parameters, training, *runs.values()]
    for part, name in PARTS.items():
        print(f"| {name} | {' | '.join(f'{column[part]:.0f}' for column in columns)} |")
    print(f"| all | {' | '.join(f'{sum(column.values()):.0f}' for column in columns)} |\n")
    for name, found in runs.items():
        total = sum(parameters.values()) + sum(training.values()) + sum(found.values())
        print(f"{name}: {total / 1024:.1f} GiB")


if __name__ == "__main__":
    main()
