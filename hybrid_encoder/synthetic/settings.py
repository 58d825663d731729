"""The settings of rendering, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError

MAX_SEED = 2**31 - 1
MAX_SIDE = 4096
"""Largest height and width of an image in pixels: the largest image takes about 5 GB during rendering."""
MAX_FRAMES = 10_000
MAX_SEQUENCES = 9_999
"""KITTI's folder names have four digits for the number of a drive."""
MAX_CLIPS = 100_000


@dataclass(frozen=True)
class SynthSettings:
    """What `write_synthetic` writes: drives in the layout of KITTI raw, and single images in the layout of TuSimple.

    A sixth of the drives, at least one, is for validation, and as many are for test. No split lists the first and the
    last frame of a drive, so that every listed frame has both neighbours. Each TuSimple image shows a different street;
    every fifth is for validation.
    """

    seed: int
    """Seed of all scenes."""
    sequences: int
    """Number of drives."""
    frames: int
    """Frames of each drive."""
    height: int
    width: int
    """Height and width of the drives' images."""
    stereo: bool = False
    """Also write the right camera (image_03), and list both sides in the splits."""
    clips: int | None = None
    """Number of TuSimple images; None: four per drive."""
    clip_size: tuple[int, int] = (720, 1280)
    """Height and width of the TuSimple images."""
    device: str = "cpu"
    """Device that renders."""
    progress: bool = True
    """Show a progress bar."""

    @property
    def clip_count(self) -> int:
        """Number of TuSimple images."""
        return 4 * self.sequences if self.clips is None else self.clips

    def check(self) -> None:
        """Raises `UserError` for a number of drives, frames or clips, an image size or a seed out of range."""
        check_seed(self.seed)
        if not (3 <= self.sequences <= MAX_SEQUENCES and 3 <= self.frames <= MAX_FRAMES):
            raise UserError(
                f"{self.sequences} sequences of {self.frames} frames: expected at least 3 sequences (train, validation "
                f"and test) of 3 frames, and at most {MAX_SEQUENCES} of {MAX_FRAMES}"
            )
        if not 2 <= self.clip_count <= MAX_CLIPS:
            raise UserError(
                f"{self.clip_count} TuSimple images: expected at least 2, one to train and one to validate, and at "
                f"most {MAX_CLIPS}"
            )
        check_image_size(self.height, self.width, least=(32, 32))
        check_image_size(*self.clip_size, least=(90, 160))


@dataclass(frozen=True)
class RigSettings:
    """What `write_rigs` writes: scenes of keyframes of a rig, in the layout of nuScenes.

    A sixth of the scenes, at least one, is for validation.
    """

    seed: int
    """Seed of all scenes."""
    scenes: int
    """Number of scenes."""
    frames: int
    """Keyframes of each scene, half a second apart."""
    height: int
    width: int
    """Height and width of the images."""
    device: str = "cpu"
    """Device that renders."""
    progress: bool = True
    """Show a progress bar."""

    def check(self) -> None:
        """Raises `UserError` for a number of scenes or frames, an image size or a seed out of range."""
        check_seed(self.seed)
        if not (2 <= self.scenes <= MAX_SEQUENCES and 1 <= self.frames <= MAX_FRAMES):
            raise UserError(
                f"{self.scenes} scenes of {self.frames} keyframes: expected at least 2 scenes (train and validation) "
                f"of 1 keyframe, and at most {MAX_SEQUENCES} of {MAX_FRAMES}"
            )
        check_image_size(self.height, self.width, least=(32, 32))


def check_seed(seed: int) -> None:
    """Raises `UserError` for a seed of a set of streets that is out of range."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed {seed} is out of range: use 0 to {MAX_SEED}")


def check_image_size(height: int, width: int, least: tuple[int, int] = (8, 8)) -> None:
    """Raises `UserError` for images that are too small to show anything or too large for memory."""
    if height < least[0] or width < least[1] or max(height, width) > MAX_SIDE:
        raise UserError(
            f"cannot render images of {height}x{width} (height x width): use at least {least[0]}x{least[1]} and at "
            f"most {MAX_SIDE}x{MAX_SIDE}"
        )
