"""Explains failures around a run to the user: a full disk, a lost data worker or process, too little memory."""

from __future__ import annotations

import errno
import os
import tempfile
from multiprocessing.connection import Listener
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.loader import worker_failure
from ..errors import UserError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}
_ONE_VALUE = "Expected more than 1 value per channel when training"
_LOST_PEER = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Socket")


def explain(error: BaseException, folder: Path, world_size: int) -> UserError | None:
    """A `UserError` for an error that is no fault of this package; None for an error that may be its fault.

    Args:
        folder: of the run, for errors that name no file.
        world_size: number of processes.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK:
        path = os.fsdecode(error.filename or folder)
        return UserError(
            f"{path} could not be written ({error.strerror}): see to the disk, then run the same command again"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"the GPU's memory is full ({str(error).splitlines()[0][:150]}): lower --batch_size (--accumulate keeps "
            "the number of images in a step), or add --precision bf16 or --checkpoint_activations"
        )
    if isinstance(error, ValueError) and _ONE_VALUE in str(error):
        return _one_value()
    if isinstance(error, RuntimeError):
        if "shared memory" in str(error) and os.strerror(errno.ENOSPC) in str(error):
            return UserError(
                "the shared memory in which data workers hand over batches is full (/dev/shm; docker gives 64 MB): "
                "start docker with --shm-size 8g, or load with fewer workers; --num_workers 0 needs none"
            )
        if str(error).startswith(os.strerror(errno.EMFILE)):  # every tensor that a worker hands over is an open file
            return UserError("data workers need more open files: raise the limit (ulimit -n 65536), or load with fewer")
        failure = worker_failure(error)
        if failure is not None:
            return failure
        lost = isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST_PEER)
        if world_size > 1 and lost:
            return UserError(
                f"another process of this run was lost ({str(error).splitlines()[0][:150]}): see its messages, then "
                "run the same command again"
            )
    return None


def check_workers(num_workers: int) -> None:
    """Raises `UserError` if data workers could not connect to the main process, which would wait minutes for them."""
    if not num_workers:
        return
    try:
        Listener().close()  # a socket in the temporary folder, as workers make them
    except OSError as error:
        raise UserError(
            f"data workers cannot make a socket in {tempfile.gettempdir()} ({error}): set TMPDIR to a folder with a "
            "short path, such as /tmp, or load with --num_workers 0"
        ) from error


def check_batch_norm(model: nn.Module, smallest_map: int | None) -> None:
    """Raises `UserError` if batch norm would see a single value per channel, which has no variance.

    Args:
        smallest_map: number of values per channel in a batch's smallest feature map; None: unknown, not checked.
    """
    norms = [module for module in model.train().modules() if isinstance(module, _BatchNorm)]
    if smallest_map == 1 and any(norm.training for norm in norms):  # frozen ones stay in eval mode
        raise _one_value()


def _one_value() -> UserError:
    return UserError(
        "one image of this size gives batch norm a single value of a channel to average over: raise --batch_size, or "
        "--height or --width"
    )
