"""What can befall a run from outside, in words: a full disk, a lost data worker, a lost process."""

from __future__ import annotations

import errno
from pathlib import Path

import torch
import torch.distributed as dist

from ..data.loader import worker_failure
from ..errors import UserError

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE}
_LOST_PEER = ("gloo", "Connection closed by peer", "Connection reset by peer", "NCCL", "Socket")


def explain(error: BaseException, folder: Path, world_size: int) -> UserError | None:
    """The user's side of an error that is none of ours; None where it may well be ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in _DISK:
        return UserError(f"{error.filename or folder} could not be written ({error.strerror}): see to the disk, then "
                         "run the same command again to go on")  # fmt: skip
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            f"the GPU's memory is full ({str(error).splitlines()[0][:150]}): lower --batch_size (--accumulate keeps "
            "the number of images in a step), or add --precision bf16 or --checkpoint_activations"
        )
    if isinstance(error, RuntimeError):
        failure = worker_failure(error)
        if failure is not None:
            return failure
        lost = isinstance(error, dist.DistError) or any(sign in str(error) for sign in _LOST_PEER)
        if world_size > 1 and lost:
            return UserError(
                f"another process of this run was lost ({str(error).splitlines()[0][:150]}): see its messages, then "
                "run the same command again to go on"
            )
    return None
