"""One computation from parameters, used several times, with the gradients of as many computations.

A graph of autograd that two losses share serves one backward pass: the first one frees it. Here the graph hangs behind
a single node, which runs it in its own backward pass. That node may run any number of times:

- Uses within one loss add their gradients up before the node, which then runs once.
- Where there are several losses, it runs once for each of them. The graph is kept until the last use is gone.
- Where there is one use, the graph lives as long as any graph: until a backward pass that does not retain it.

The graph is computed from copies of the parameters. So a backward pass after a step of the optimiser is that of the
forward pass before it, and hooks on the parameters run once, on the whole gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SharedGraph:
    """A value that is computed once and used as if it were computed at every use.

    >>> calls, a = [], torch.tensor(3.0, requires_grad=True)
    >>> shared = SharedGraph({"a": a}, lambda given: calls.append(given) or given["a"] ** 2)
    >>> first, second = shared.use(), 10 * shared.use()
    >>> first.backward()
    >>> second.backward()
    >>> a.grad, len(calls)
    (tensor(66.), 1)

    Attributes:
        copies: the parameters' values that it was computed from.
    """

    def __init__(self, parameters: Mapping[str, Tensor], compute: Callable[[dict[str, Tensor]], Tensor]) -> None:
        """
        Args:
            parameters: what to differentiate with respect to.
            compute: from copies of the parameters to the value, without random numbers.
        """
        # The graph's own tensors are none of the caller's hooks' business: under torch.utils.checkpoint, a first use
        # and a later one must look alike.
        with torch.enable_grad(), saved_tensors_hooks(_pack, _unpack):
            copies = {name: parameter.clone() for name, parameter in parameters.items()}
            self._state = _State(list(copies.values()), compute(copies))
            self._value: Tensor = _Behind.apply(self._state, *parameters.values())
        self.copies = {name: copy.detach() for name, copy in copies.items()}

    def use(self) -> Tensor:
        """The value, as a tensor of its own; to be called while `reusable`."""
        self._state.uses += 1
        return self._value.clone()

    def value(self) -> Tensor:
        """A copy without a graph."""
        return self._value.detach().clone()

    def reusable(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether no backward pass has run yet, and it is about these parameters: their names are compared."""
        return not self._state.ran and parameters.keys() == self.copies.keys()


@dataclass
class _State:
    """What the node knows. It does not know its own output, which would be a circle.

    Attributes:
        copies: what the graph begins with.
        end: what it ends with; None: only the node holds it, until a backward pass frees it.
        uses: how often the value was taken.
        ran: whether a backward pass has run.
    """

    copies: list[Tensor]
    end: Tensor | None
    uses: int = 0
    ran: bool = False


class _Behind(torch.autograd.Function):
    """The node that the graph hangs behind."""

    @staticmethod
    def forward(ctx: Any, state: _State, *parameters: Tensor) -> Tensor:
        assert state.end is not None
        ctx.state = state
        ctx.save_for_backward(state.end)
        return state.end.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        state: _State = ctx.state
        state.ran = True
        end = ctx.saved_tensors[0] if state.end is None else state.end
        twice = torch.is_grad_enabled()
        found = torch.autograd.grad(
            end, state.copies, gradient, retain_graph=True, create_graph=twice, allow_unused=True
        )
        if state.uses == 1:
            state.end = None
        return None, *found


def _pack(saved: Tensor) -> tuple[Tensor, int]:
    """Without its graph, which autograd adds again: an output that held its own node would never be freed."""
    values = saved.detach()
    return values, values._version


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    """With the check that autograd makes where there are no hooks."""
    values, version = packed
    if values._version != version:
        raise RuntimeError(
            f"a parameter of shape {tuple(values.shape)} was written to in place between a forward pass and its "
            "backward pass: call backward() first"
        )
    return values
