"""One step of the optimiser, on one batch or on several whose gradients are added up. The step is skipped, and the nets
do not change, if a loss, a gradient or a running statistic is non-finite."""

from __future__ import annotations

import math
import sys
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from ..options import Precision
from .activation_checkpointing import checkpoint_activations
from .processes import Processes
from .task import LoopOptions

WARM_UP = 0.1
"""Share of a one-cycle run in which the learning rate rises."""


class Stepper:
    """Runs a model on batches, and takes a step of the optimiser at the end of every group of batches.

    Attributes:
        skipped: number of steps skipped so far.
        skipped_names: the samples of the last skipped step, in this process; empty if another process caused it.
        in_a_row: number of steps skipped in a row up to now. A single one may be due to a bad sample; after several,
            the nets may hold non-finite values.
    """

    def __init__(
        self,
        net: nn.Module,
        model: nn.Module,
        processes: Processes,
        precision: Precision,
        clip_grad: float | None,
        clip_parts: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            net: the nets, whose buffers a skipped step must not change.
            model: the module to call: the nets, or their wrapper for several processes.
            clip_grad, clip_parts: as in `LoopOptions`.
        """
        self.net, self.model, self.processes = net, model, processes
        self.precision, self.clip_grad, self.clip_parts = precision, clip_grad, clip_parts
        self.skipped = 0
        self.skipped_names: list[str] = []
        self.in_a_row = 0
        self._bad = False
        self._names: list[str] = []
        self._before: list[Tensor] = []

    def run(self, optimizer: Optimizer, batch: Any, names: list[str], position: int, size: int) -> dict[str, Tensor]:
        """Forward and backward pass of one batch of a group.

        Args:
            optimizer: its parameters' gradients are clipped after the last batch.
            batch: on the device.
            names: of its samples.
            position: of the batch in its group, from 0.
            size: number of batches in the group.

        Returns:
            The model's scalars; empty if the group has a non-finite value, so that `finish` takes no step.
        """
        if position == 0:
            self._bad, self._names = False, []
            self._keep_buffers()
        self._names += names
        if self._bad:
            return {}
        last = position + 1 == size
        with self._unshared(not last):
            device = self.processes.device.type
            with torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16"):
                scalars: dict[str, Tensor] = self.model(batch)
            loss, value = scalars["loss"], scalars["loss"].detach()
            # Checked before the backward pass, since PyTorch was seen to crash there on a CPU, from warping at
            # non-finite places. All processes decide alike: none may wait for gradients that another does not compute.
            if self.processes.any(not bool(torch.isfinite(value))):
                self._skip(f"loss {float(value):g}", bool(torch.isfinite(value)))
                return {}
            (loss / size).backward()
        if last:
            norm = self._cut_gradients(optimizer)
            whole = bool(torch.isfinite(norm) & self._statistics_finite(norm.device))
            if self.processes.any(not whole):
                self._skip(f"loss {float(value):g}, norm of the gradient {float(norm):g}", whole)
                return {}
        return {name: value.detach() for name, value in scalars.items()}

    def _cut_gradients(self, optimizer: Optimizer) -> Tensor:
        """Clips gradients as the options ask for; returns the norm that all of them together had before."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.clip_grad and not self.clip_parts:
            nn.utils.clip_grads_with_norm_(parameters, self.clip_grad, norm)
        elif self.clip_grad:
            for name in self.clip_parts:
                nn.utils.clip_grad_norm_(self.net.get_submodule(name).parameters(), self.clip_grad)
        return norm

    def _unshared(self, unshared: bool) -> AbstractContextManager[None]:
        """Keeps gradients in their process until the group's last batch, so that they are exchanged once."""
        wrapped: Any = self.model
        return wrapped.no_sync() if unshared and self.processes.world_size > 1 else nullcontext()

    def finish(self, optimizer: Optimizer) -> bool:
        """Takes the optimiser's step at the end of a group; False if the step was skipped."""
        if not self._bad:
            optimizer.step()
            self.in_a_row = 0
        optimizer.zero_grad(set_to_none=True)
        return not self._bad

    def _skip(self, what: str, innocent: bool) -> None:
        """Restores the running statistics from before the group, and reports the step unless this process is
        innocent."""
        self._bad = True
        self.in_a_row += 1
        self.skipped += 1
        self.skipped_names = [] if innocent else self._names
        torch._foreach_copy_(list(self.net.buffers()), self._before)
        if not innocent:
            print(f"step skipped, not finite: {what}; samples: {', '.join(self._names)}", file=sys.stderr)

    def _keep_buffers(self) -> None:
        """Copies all buffers, in one call and into the same memory every time."""
        buffers = list(self.net.buffers())
        if len(self._before) != len(buffers):
            self._before = [torch.empty_like(buffer) for buffer in buffers]
        if buffers:
            torch._foreach_copy_(self._before, buffers)

    def _statistics_finite(self, device: torch.device) -> Tensor:
        """Whether batch-norm statistics are finite: a non-finite activation need not show in the loss."""
        kept = ("running_mean", "running_var")
        values = [buffer for name, buffer in self.net.named_buffers() if name.endswith(kept)]
        if not values:
            return torch.tensor(True, device=device)
        return torch.isfinite(torch.stack(torch._foreach_norm(values, math.inf)).sum())


def build_stepper(net: nn.Module, processes: Processes, options: LoopOptions) -> Stepper:
    """The stepper of nets that are wrapped and compiled as the options say."""
    if options.checkpoint_activations:
        checkpoint_activations(net)
    model = processes.wrap(net, options.sync_bn)
    if options.compile:
        # Sizes that vary from batch to batch, as the number of stage 1's sequences, become dynamic.
        model = cast(nn.Module, torch.compile(model))
    return Stepper(net, model, processes, options.precision, options.clip_grad, options.clip_parts)


def optimizer_steps(epochs: int, batches: int, accumulate: int) -> int:
    """Steps of the optimiser in a run; an epoch's last group of batches may be smaller.

    >>> optimizer_steps(2, 5, 2)
    6

    Args:
        batches: of an epoch.
        accumulate: batches of a step.
    """
    return epochs * -(-batches // accumulate)


def one_cycle(optimizer: Optimizer, steps: int) -> OneCycleLR:
    """One cycle (Smith & Topin 2018, https://arxiv.org/abs/1708.07120) whose peaks are the groups' learning rates.

    Args:
        steps: of the optimiser in the run; PyTorch needs two.
    """
    peaks = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peaks, total_steps=max(steps, 2), pct_start=WARM_UP)


def step_schedule(scheduler: LRScheduler) -> None:
    """Moves the schedule without PyTorch's warning: a resumed run has not made the optimiser's earlier steps itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of .lr_scheduler.step")
        scheduler.step()
