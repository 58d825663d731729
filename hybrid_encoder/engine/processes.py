"""The processes of a run and their devices: one process by default, several under torchrun."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError

_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it ends with an error. It covers validation or saving that takes one
process longer than another; a process that was killed is noticed at once, by its connections."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process logs, saves and prints."""
        return self.rank == 0

    def place(self, model: nn.Module) -> None:
        """Moves a model to this process's device; on a GPU with convolutions channels-last. On CPUs, the gradient of
        weights over channels-last maps takes up to six times as long (benchmarks/README.md)."""
        layout = torch.contiguous_format if self.device.type == "cpu" else torch.channels_last
        model.to(self.device, memory_format=layout)  # type: ignore[call-overload]

    def wrap(self, model: nn.Module, sync_bn: bool = False) -> nn.Module:
        """The model with gradients that are averaged over processes; the model itself if there is one process.

        Args:
            sync_bn: whether batch norm sees the samples of all processes.

        Raises:
            UserError: `sync_bn` on CPUs, where PyTorch lacks it.
        """
        if self.world_size == 1:
            return model
        if sync_bn:
            if self.device.type != "cuda":
                raise UserError("--sync_bn: PyTorch synchronises batch norm on GPUs only, leave it out")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Nets that freeze during training leave parameters without gradients.
        return DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Every value averaged over processes; all processes must call it with the same keys."""
        if self.world_size == 1 or not values:
            return values
        keys = sorted(values)
        packed = self.total(torch.tensor([values[key] for key in keys], dtype=torch.float64))
        return dict(zip(keys, (packed / self.world_size).tolist(), strict=True))

    def total(self, counts: torch.Tensor) -> torch.Tensor:
        """Numbers on the CPU, summed over processes."""
        if self.world_size > 1:
            counts = counts.clone()
            dist.all_reduce(counts)
        return counts

    def any(self, flag: bool) -> bool:
        """Whether the flag is True in any process."""
        if self.world_size == 1:
            return flag
        packed = torch.tensor([float(flag)])
        dist.all_reduce(packed, op=dist.ReduceOp.MAX)
        return bool(packed.item())

    def share_buffers(self, model: nn.Module) -> None:
        """Copies the first process's buffers (batch-norm statistics), which are saved, to all processes."""
        if self.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of `--device {auto,cpu,cuda,cuda:N}`.

    Raises:
        UserError: an unknown name, or a GPU where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: PyTorch sees no GPU here, use --device cpu")
        index = local_rank if device.index is None else device.index
        if index >= torch.cuda.device_count():
            raise UserError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise UserError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    return device


@contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """Joins the other processes that torchrun started, if any, and leaves them at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    if world_size > 1 and device.startswith("cuda:"):
        raise UserError(f"--device {device} is one GPU for {world_size} processes: use --device cuda, one GPU each")
    chosen = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True  # sizes do not change, so that comparing algorithms of convolutions pays
    if world_size == 1:
        yield Processes(chosen)
        return
    # Flags and metrics are exchanged by gloo, also on GPUs: it notices a lost process at once and reports it.
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the other processes cannot be joined ({error}): start all of them with torchrun") from error
    try:
        yield Processes(chosen, rank, world_size)
    finally:
        leave()


def leave() -> None:
    """Takes this process out of the group.

    Gloo's threads may still be freeing the tensors of the last exchange, for which they need Python's lock. PyTorch 2.6
    and 2.7 hold this lock while they wait for those threads, and were seen to hang: so the threads get some time first.
    """
    time.sleep(0.2)
    dist.destroy_process_group()
