"""The sample format that every data set yields and every self-supervised trainer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:  # options of commands import `FrameId`, and `--help` must not wait for PyTorch
    from torch import Tensor

FrameId = int | Literal["s"]
"""A frame's place in a sample: 0 the target, -1 and 1 its neighbours in time, "s" the stereo pair's other camera."""


class Sample(TypedDict):
    """One training example of self-supervised depth; torch's default collation makes a batch with the same keys."""

    frames: Tensor
    """uint8 (F, 3, H, W), RGB, in the order of the dataset's frame_ids."""
    K: Tensor
    """float32 (3, 3), pinhole intrinsics in pixels of the H x W frames."""
    jitter: Tensor
    """float32 (4,), or (F, 4) with numbers for each frame: factors of brightness, contrast and saturation, and the hue
    shift (share of a turn); (1, 1, 1, 0) changes nothing."""
    stereo_T: Tensor
    """float32 (4, 4): maps points of camera 0 to the "s" camera; baseline 0.1 units (x 5.4 is KITTI's metres)."""
    name: str
    """Names the sample in messages: "folder frame side", "video.mp4 frame 17"."""
