"""A value computed once and used several times, with the gradients of computing it at every use.

Two losses cannot share an ordinary graph of autograd: the first backward pass frees it. Here one node of autograd
holds the graph, and runs the graph's backward pass in its own. That node may run any number of times:

- Uses within one loss: their gradients are added up before the node, which then runs once.
- Several losses: the node runs once for each of them, and keeps the graph until the last use is gone.
- A single use: the graph is freed as usual, by the first backward pass that does not retain it.

The graph is computed from copies of the parameters. So a backward pass after an optimiser step still differentiates
the forward pass before that step, and hooks on the parameters run once, on the whole gradient.
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
        copies: the values of the parameters that the value was computed from.
    """

    def __init__(self, parameters: Mapping[str, Tensor], compute: Callable[[dict[str, Tensor]], Tensor]) -> None:
        """
        Args:
            parameters: what to differentiate with respect to.
            compute: computes the value from copies of the parameters, without random numbers.
        """
        # The caller's hooks must not see the graph's own tensors: under torch.utils.checkpoint, a first use and a later
        # one must look alike.
        with torch.enable_grad(), saved_tensors_hooks(_pack, _unpack):
            copies = {name: parameter.clone() for name, parameter in parameters.items()}
            self._state = _State(list(copies.values()), compute(copies))
            self._value: Tensor = _Node.apply(self._state, *parameters.values())
        self.copies = {name: copy.detach() for name, copy in copies.items()}

    def use(self) -> Tensor:
        """The value as a new tensor; to be called only while `reusable`."""
        self._state.uses += 1
        return self._value.clone()

    def value(self) -> Tensor:
        """A copy without a graph."""
        return self._value.detach().clone()

    def reusable(self, parameters: Mapping[str, Tensor]) -> bool:
        """Whether no backward pass has run yet, and the graph is of parameters with these names."""
        return not self._state.ran and parameters.keys() == self.copies.keys()


@dataclass
class _State:
    """The node's state. It does not hold the node's output, which would be a reference cycle.

    Attributes:
        copies: the graph's inputs.
        end: the graph's output; None: only the node's saved tensors hold it, until a backward pass frees them.
        uses: how often the value was taken.
        ran: whether a backward pass has run.
    """

    copies: list[Tensor]
    end: Tensor | None
    uses: int = 0
    ran: bool = False


class _Node(torch.autograd.Function):
    """The node of autograd that runs the graph's backward pass in its own."""

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
    """A saved tensor without its graph, which autograd restores: holding its own node, it would never be freed."""
    values = saved.detach()
    return values, values._version


def _unpack(packed: tuple[Tensor, int]) -> Tensor:
    """The saved tensor, after the check for in-place writes that autograd makes where there are no hooks."""
    values, version = packed
    if values._version != version:
        raise RuntimeError(
            f"a parameter of shape {tuple(values.shape)} was written to in place between a forward pass and its "
            "backward pass: call backward() first"
        )
    return values
