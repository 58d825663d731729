"""Rendered drives: images, exact depth, exact poses, intrinsics and lane points, all from one seed.

    sequence = render_sequence(seed=7, frames=5, height=96, width=320)
    source = SyntheticSource(seed=0, sequences=40, frames=5, height=96, width=320)    # what trainers read

`street` makes the scene, `render` renders it. The same seed gives the same images on the same device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.sample import FrameId
from ..engine.bars import progress_bar
from ..errors import UserError
from .camera import Camera, default_intrinsics, kitti_camera
from .lanes import visible_lanes
from .render import render_view
from .settings import MAX_FRAMES, MAX_SEED, check_image_size, check_seed
from .street import draw_scene

BASELINE = 0.54
"""Distance from the left to the right camera in metres, as in KITTI."""
SEED_STRIDE = 1_000_003
"""Street n of a set of streets with seed s has the seed s * SEED_STRIDE + n: two sets have no street in common."""


@dataclass
class SyntheticSequence:
    """A drive of F frames; tensors are on the CPU. Depth is 0 in the sky and beyond 200 m."""

    images: Tensor
    """uint8 (F, 3, H, W), RGB."""
    depth: Tensor
    """float32 (F, 1, H, W), metres along the camera's axis, at pixel centres."""
    T_world_camera: Tensor
    """float32 (F, 4, 4), world from (left) camera, metres; the world's y axis points down."""
    K: Tensor
    """float32 (3, 3), pixels; pixel centres lie at integer coordinates."""
    lanes: list[list[np.ndarray]]
    """For each frame and painted line, float32 (n, 2): x and y of its visible points in pixels, from near to far and at
    least a row apart."""
    moving: Tensor
    """bool (F, 1, H, W), True on moving vehicles."""
    images_right: Tensor | None = None
    """uint8 (F, 3, H, W), images of a camera `BASELINE` to the right; None without stereo."""
    depth_right: Tensor | None = None
    """float32 (F, 1, H, W), depth of the right images; None without stereo."""


@dataclass
class SyntheticFrame:
    """One frame of a drive; tensors are those of `SyntheticSequence` without the first dimension."""

    image: Tensor
    depth: Tensor
    moving: Tensor
    T_world_camera: Tensor
    lanes: list[np.ndarray]
    image_right: Tensor | None
    depth_right: Tensor | None


def render_sequence(
    seed: int, frames: int, height: int, width: int, device: str | torch.device = "cpu", stereo: bool = False
) -> SyntheticSequence:
    """Renders one drive through a street of its own with KITTI's average camera; arguments and errors are those of
    `iterate_frames` and `Camera`."""
    camera = kitti_camera(height, width)
    views = list(iterate_frames(seed, frames, camera, device, stereo))
    right = [view.image_right for view in views if view.image_right is not None]
    right_depth = [view.depth_right for view in views if view.depth_right is not None]
    return SyntheticSequence(
        images=torch.stack([view.image for view in views]),
        depth=torch.stack([view.depth for view in views]),
        T_world_camera=torch.stack([view.T_world_camera for view in views]),
        K=camera.K.float(),
        lanes=[view.lanes for view in views],
        moving=torch.stack([view.moving for view in views]),
        images_right=torch.stack(right) if stereo else None,
        depth_right=torch.stack(right_depth) if stereo else None,
    )


def iterate_frames(
    seed: int,
    frames: int,
    camera: Camera,
    device: str | torch.device = "cpu",
    stereo: bool = False,
    dead_end: bool = True,
) -> Iterator[SyntheticFrame]:
    """Renders one drive through a street of its own, frame by frame.

    Args:
        seed: 0 or more; every seed gives another street.
        frames: number of frames; they are 0.5 to 1.2 m apart.
        camera: on the car; its pitch is added to a small random one.
        device: the device that renders; results are on the CPU. Devices round differently: some grey values may differ
            by one.
        stereo: also render the right camera.
        dead_end: whether the street may end at a house or wall.

    Raises:
        UserError: a seed or a number of frames out of range.
    """
    if not 0 <= seed < (MAX_SEED + 1) * SEED_STRIDE:
        raise UserError(f"seed {seed} of a street is out of range: use 0 to {MAX_SEED}")
    if not 1 <= frames <= MAX_FRAMES:
        raise UserError(f"cannot render {frames} frames: use 1 to {MAX_FRAMES}")
    scene = draw_scene(seed, frames, camera.pitch, dead_end)
    to_right = torch.eye(4, dtype=torch.float64)
    to_right[0, 3] = BASELINE

    def view(frame: int, right: bool) -> tuple[Tensor, Tensor, Tensor]:
        pose = scene.poses[frame] @ to_right if right else scene.poses[frame]
        deviates = torch.Generator().manual_seed((seed + 1) * 4096 + 2 * frame + right)
        noise = torch.randn((3, camera.height, camera.width), generator=deviates).to(device)
        image, depth, moving = render_view(scene, frame, camera, pose, noise)
        return image.cpu(), depth[None].cpu(), moving[None].cpu()

    for frame, pose in enumerate(scene.poses):
        image, depth, moving = view(frame, right=False)
        lanes = visible_lanes(scene, camera, pose, depth[0])
        image_right, depth_right, _ = view(frame, right=True) if stereo else (None, None, None)
        yield SyntheticFrame(image, depth, moving, pose.float(), lanes, image_right, depth_right)


class SyntheticSource:
    """Rendered sequences as a `FrameSource`, with their exact depth and poses.

    A sequence is rendered at its first use and kept in memory. An index is a frame in the interior of a drive, so that
    it has both neighbours.

    Args:
        seed: every seed gives another set of streets: use another seed for held-out data.
        sequences: number of drives.
        frames: frames of each drive.
        height, width: of the images.
        stereo: make the right camera available as frame "s".
        margin: number of frames at each end of a drive that are only neighbours; the largest frame_id that can be read.
        device: the device that renders.

    Raises:
        UserError: no frame is left between the margins, or a seed, a size or a number of sequences out of range.
    """

    def __init__(
        self,
        seed: int,
        sequences: int,
        frames: int,
        height: int,
        width: int,
        stereo: bool = False,
        margin: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        if not 1 <= sequences <= SEED_STRIDE or frames < 2 * margin + 1:
            raise UserError(
                f"{sequences} synthetic sequences of {frames} frames: expected at least 1 of {2 * margin + 1}, "
                f"so that a frame has both neighbours, and at most {SEED_STRIDE} sequences"
            )
        check_seed(seed)
        check_image_size(height, width)
        self.seed, self.sequences, self.frames = seed, sequences, frames
        self.height, self.width, self.stereo, self.margin = height, width, stereo, margin
        self.device = device
        self._rendered: dict[int, SyntheticSequence] = {}

    def __len__(self) -> int:
        return self.sequences * (self.frames - 2 * self.margin)

    def name(self, index: int) -> str:
        number, frame = self._locate(index)
        return f"synthetic seed {self.seed} sequence {number} frame {frame}"

    def read(self, index: int, frame_id: FrameId) -> np.ndarray:
        """uint8 RGB (H, W, 3)."""
        sequence, frame = self._find(index, 0 if frame_id == "s" else frame_id)
        if frame_id == "s":
            if sequence.images_right is None:
                raise UserError("the synthetic scenes were rendered without a right camera: pass stereo=True")
            return np.ascontiguousarray(sequence.images_right[frame].permute(1, 2, 0).numpy())
        return np.ascontiguousarray(sequence.images[frame].permute(1, 2, 0).numpy())

    def intrinsics(self, index: int) -> np.ndarray:
        """(3, 3) float32, pixels of the images."""
        return default_intrinsics(self.height, self.width).astype(np.float32)

    def stereo_sign(self, index: int) -> int:
        """-1: all frames are of the left camera."""
        return -1

    def depth(self, index: int) -> np.ndarray:
        """Exact depth of frame 0, float32 (H, W), metres; 0 where there is none."""
        sequence, frame = self._find(index, 0)
        return sequence.depth[frame, 0].numpy().copy()

    def pose(self, index: int, frame_id: int = 0) -> np.ndarray:
        """(4, 4) float32, world from camera; inv(pose(i, 1)) @ pose(i, 0) maps points of frame 0 to frame 1."""
        sequence, frame = self._find(index, frame_id)
        return sequence.T_world_camera[frame].numpy()

    def sequence(self, number: int) -> SyntheticSequence:
        """A drive; it is rendered at the first call."""
        if number not in self._rendered:
            self._rendered[number] = render_sequence(
                self.seed * SEED_STRIDE + number, self.frames, self.height, self.width, self.device, self.stereo
            )
        return self._rendered[number]

    def render(self, progress: bool = True) -> None:
        """Renders all drives; worker processes that are forked later share them."""
        for number in progress_bar(range(self.sequences), "rendering scenes", unit="scene", shown=progress):
            self.sequence(number)

    def _locate(self, index: int) -> tuple[int, int]:
        number, frame = divmod(range(len(self))[index], self.frames - 2 * self.margin)
        return number, frame + self.margin

    def _find(self, index: int, frame_id: int) -> tuple[SyntheticSequence, int]:
        number, frame = self._locate(index)
        if abs(frame_id) > self.margin:
            raise UserError(
                f"frame {frame_id} is farther than margin={self.margin} from the indexed frames: raise margin"
            )
        return self.sequence(number), frame + frame_id
