"""Keeps text features until something that they are computed from has changed; never returns old ones.

Text features depend on the text tower (about 100 MB) and the depth tokens (at most a few hundred kB), and every image
needs them. In evaluation they rarely change; in a training step, where the encoder may be called several times, they do
not change before the backward pass. Every call checks in two ways whether they are still right:

- By value, against a copy: the tokens always, and parameters of the tower once they have been seen to require
  gradients. This check sees every write, also those of fused optimisers, which do not increment PyTorch's version of a
  parameter, and writes through `.data`, such as moving averages of weights. On a GPU the host waits for the result;
  the first call of a training step needs no check.
- By identity, address and version: frozen parameters of the tower. They get no gradients, so no optimiser writes to
  them, and every other way to change them is visible there: in-place operations and `load_state_dict` increment the
  version, `assign=True`, `.to()` and `parameter.data = ...` change the identity or the address. The one exception is an
  in-place write through `.data` to a *frozen* parameter: switch between `train()` and `eval()` after it, or `clear()`.
  Tensors that were made in inference mode have no version and are compared by value.

With gradients, calls share one graph (`shared_graph`) until its backward pass has run. Where PyTorch transforms or
records the computation (torch.compile, torch.func, tracing, CUDA graphs), every call computes the features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from .exporting import is_exporting
from .shared_graph import SharedGraph

Compute = Callable[[dict[str, Tensor]], Tensor]
"""Computes text features, with the given tensors in place of the parameters of these names; {}: with none."""


class TextCache:
    """Values by name, each with what it was computed from.

    Args:
        by_value: names of parameters that are always compared by value.
    """

    def __init__(self, by_value: Iterable[str] = ()) -> None:
        self._kept: dict[str, _Kept] = {}
        self._by_value = set(by_value)

    def __getstate__(self) -> dict[str, Any]:
        """For copies of a model, which do not share its graphs."""
        return {**self.__dict__, "_kept": {name: replace(kept, graph=None) for name, kept in self._kept.items()}}

    def clear(self) -> None:
        """Forgets all values."""
        self._kept.clear()

    def get(self, name: str, parameters: Mapping[str, Tensor], compute: Compute) -> Tensor:
        """The value kept under a name, or a newly computed one if a parameter has changed since.

        The value has a graph where gradients are enabled and a parameter requires them. `torch.export` has no values to
        compare: it takes a kept value as a constant; where none is kept, it computes the text within its graph. Without
        gradients, `torch.compile` breaks its graph here; with gradients, the text is part of its graph.

        Args:
            parameters: all that the value depends on, by name.
            compute: gives the value.
        """
        trained = {n: p for n, p in parameters.items() if p.requires_grad} if torch.is_grad_enabled() else {}
        if trained and not _can_share(parameters.values()):
            self._by_value.update(trained)
            self.clear()
            return compute({})
        if _without_values(parameters.values()):
            kept = self._kept.get(name)
            return compute({}) if kept is None else kept.value
        if torch.compiler.is_compiling():
            from .uncompiled import uncompiled  # brings the compiler with it, which takes seconds

            return uncompiled(self.checked, name, parameters, trained, compute)
        return self.checked(name, parameters, trained, compute)

    def checked(
        self, name: str, parameters: Mapping[str, Tensor], trained: Mapping[str, Tensor], compute: Compute
    ) -> Tensor:
        """As `get`, outside of exports and of `torch.compile`.

        Args:
            trained: the parameters that gradients are wanted for.
        """
        if not _are_a_module_s_own(parameters.values()):
            return compute({})
        self._by_value.update(n for n, parameter in parameters.items() if parameter.requires_grad)
        kept = self._kept.get(name)
        usable = kept is not None and (not trained or kept.has_graph_of(trained))
        if kept is None or not usable or not kept.is_current(parameters, self._by_value):
            if torch.jit.is_tracing():  # a value kept now would be an input of the next trace
                return compute({})
            kept = None
            self._kept.pop(name, None)  # frees its graph before another is made
            kept = self._kept[name] = _Kept.of(parameters, trained, self._by_value, compute)
        return kept.graph.use() if trained and kept.graph is not None else kept.value


@dataclass(frozen=True)
class _Source:
    """The state of a parameter when a value was computed from it.

    Attributes:
        parameter: held, so that no later parameter takes its address.
        address, version: of its values; version is -1 where there is none.
        values: a copy, None where a change shows in the address or the version.
    """

    parameter: Tensor
    address: int
    version: int
    values: Tensor | None

    @classmethod
    def of(cls, parameter: Tensor, values: Tensor | None) -> _Source:
        version = -1 if parameter.is_inference() else parameter._version
        return cls(parameter, parameter.data_ptr(), version, values)

    def is_current(self, now: Tensor, by_value: bool) -> bool:
        """Whether a parameter has not changed since."""
        if self.values is None:
            same = now is self.parameter and now.data_ptr() == self.address
            return same and not by_value and now._version == self.version
        same = now.device == self.values.device and now.dtype == self.values.dtype
        return same and torch.equal(now, self.values)


@dataclass(frozen=True)
class _Kept:
    """A value, the states of all parameters that it was computed from, and its graph if it has one."""

    sources: dict[str, _Source]
    value: Tensor
    graph: SharedGraph | None

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, Tensor],
        trained: Mapping[str, Tensor],
        by_value: Collection[str],
        compute: Compute,
    ) -> _Kept:
        """Computes the value, with a graph if parameters are to be trained."""
        # Leaving inference mode: a tensor made inside it could not serve a later training step.
        with torch.inference_mode(False), torch.no_grad():
            graph = SharedGraph(trained, compute) if trained else None
            copies = dict(graph.copies) if graph is not None else {}
            for name, parameter in parameters.items():
                if name not in copies and (name in by_value or parameter.is_inference()):
                    copies[name] = parameter.detach().clone()
            sources = {name: _Source.of(parameter, copies.get(name)) for name, parameter in parameters.items()}
            return cls(sources, compute({}) if graph is None else graph.value(), graph)

    def has_graph_of(self, trained: Mapping[str, Tensor]) -> bool:
        """Whether there is a graph for these parameters whose backward pass has not run."""
        return self.graph is not None and self.graph.reusable(trained)

    def is_current(self, parameters: Mapping[str, Tensor], by_value: Collection[str]) -> bool:
        """Whether no parameter has changed since."""
        if parameters.keys() != self.sources.keys():
            return False
        return all(self.sources[name].is_current(now, name in by_value) for name, now in parameters.items())


def _can_share(parameters: Collection[Tensor]) -> bool:
    """Whether later calls may use a graph of this call."""
    if torch.compiler.is_compiling() or _without_values(parameters):
        return False
    if torch.jit.is_tracing() or torch._C._are_functorch_transforms_active():
        return False
    capturing = any(parameter.is_cuda for parameter in parameters) and torch.cuda.is_current_stream_capturing()
    return not capturing and _are_a_module_s_own(parameters)


def _are_a_module_s_own(parameters: Collection[Tensor]) -> bool:
    """Whether parameters have values and are a module's own: torch.func puts other tensors in their place for one
    call."""
    return all(isinstance(parameter, nn.Parameter) and not parameter.is_meta for parameter in parameters)


def _without_values(parameters: Collection[Tensor]) -> bool:
    """Whether parameters have shapes but no values, as within `torch.export`, strict or not."""
    return any(isinstance(parameter, FakeTensor) for parameter in parameters) or is_exporting()
