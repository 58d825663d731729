"""Keeps text features until something that they are computed from has changed; never returns old ones.

What is computed from the text tower (about 100 MB) and the depth tokens (at most a few hundred kB) is needed again for
every image, and rarely changes outside of training. Two kinds of checks tell whether it has, at every call:

- By value, against a copy: the tokens, always; every parameter of the tower as well, from the moment that it is seen
  to require gradients. This check needs no help of whoever writes: it sees fused optimisers, which do not count
  PyTorch's version of a parameter up, and writes through `.data`, such as moving averages of weights. On a GPU the
  host waits for its answer, which is asked for only where no gradients are wanted.
- By identity, address and version: parameters of a frozen tower. They get no gradients, so no optimiser writes to
  them, and every other way to change them is visible there: in-place operations and `load_state_dict` count the version
  up, `assign=True`, `.to()` and `parameter.data = ...` change the identity or the address. The one exception is an
  in-place write through `.data` to a *frozen* tower: switch between `train()` and `eval()` after it, or `clear()`.
  Tensors that were made in inference mode have no version and are compared by value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


class TextCache:
    """Values by name, each with what it was computed from."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._tower_trains = False

    def clear(self) -> None:
        """Forgets all values."""
        self._kept.clear()

    def expect_training(self, tower: Sequence[Tensor]) -> None:
        """To be called where text is computed with gradients, which may change the parameters afterwards."""
        if any(parameter.requires_grad for parameter in tower):
            self._tower_trains = True
        self.clear()

    def get(
        self, name: str, tokens: Sequence[Tensor], tower: Sequence[Tensor], compute: Callable[[], Tensor]
    ) -> Tensor:
        """The value kept under a name, or a newly computed one if a parameter has changed since.

        An export has no values to compare: it takes what is kept as a constant, and computes the text within its graph
        where nothing is kept. `torch.compile` breaks its graph here.

        Args:
            tokens: parameters that are compared by value.
            tower: parameters that are compared by value only if they train.
            compute: gives the value.
        """
        if _without_values(tower):
            kept = self._kept.get(name)
            return compute() if kept is None else kept.value
        if torch.compiler.is_compiling():
            from .uncompiled import uncompiled  # brings the compiler with it, which takes seconds

            return uncompiled(self.checked, name, tokens, tower, compute)
        return self.checked(name, tokens, tower, compute)

    def checked(
        self, name: str, tokens: Sequence[Tensor], tower: Sequence[Tensor], compute: Callable[[], Tensor]
    ) -> Tensor:
        """As `get`, outside of exports and of `torch.compile`."""
        parameters = [*tokens, *tower]
        # torch.func puts other tensors in the place of parameters, for one call.
        if not all(isinstance(parameter, nn.Parameter) and not parameter.is_meta for parameter in parameters):
            return compute()
        self._tower_trains |= any(parameter.requires_grad for parameter in tower)
        by_value = [True] * len(tokens) + [self._tower_trains or parameter.is_inference() for parameter in tower]
        kept = self._kept.get(name)
        if kept is not None and kept.is_current(parameters, by_value):
            return kept.value
        if torch.jit.is_tracing():  # which would take what is kept now for an input of the next trace
            return compute()
        # Leaving inference mode: a tensor made inside it could not serve a later training step.
        with torch.inference_mode(False), torch.no_grad():
            sources = [_Source.of(p, copied) for p, copied in zip(parameters, by_value, strict=True)]
            kept = self._kept[name] = _Kept(sources, compute())
        return kept.value


@dataclass(frozen=True)
class _Source:
    """What a parameter was when a value was computed from it.

    Attributes:
        parameter: held, so that no later parameter takes its address.
        address, version: of its values; version -1 where there is none.
        values: a copy, None where a change shows in the address or the version.
    """

    parameter: Tensor
    address: int
    version: int
    values: Tensor | None

    @classmethod
    def of(cls, parameter: Tensor, copied: bool) -> _Source:
        version = -1 if parameter.is_inference() else parameter._version
        return cls(parameter, parameter.data_ptr(), version, parameter.detach().clone() if copied else None)

    def is_current(self, now: Tensor, by_value: bool) -> bool:
        """Whether a parameter still is what it was."""
        if self.values is None:
            same = now is self.parameter and now.data_ptr() == self.address
            return same and not by_value and now._version == self.version
        same = now.device == self.values.device and now.dtype == self.values.dtype
        return same and torch.equal(now, self.values)


@dataclass(frozen=True)
class _Kept:
    """A value and all that it was computed from."""

    sources: list[_Source]
    value: Tensor

    def is_current(self, parameters: Sequence[Tensor], by_value: Sequence[bool]) -> bool:
        if len(parameters) != len(self.sources):
            return False
        checks = zip(self.sources, parameters, by_value, strict=True)
        return all(source.is_current(now, copied) for source, now, copied in checks)


def _without_values(parameters: Sequence[Tensor]) -> bool:
    """Whether parameters have shapes alone, as within `torch.export`, strict or not."""
    strict = getattr(torch.compiler, "is_exporting", None)  # torch 2.7
    return any(isinstance(parameter, FakeTensor) for parameter in parameters) or (strict is not None and strict())
