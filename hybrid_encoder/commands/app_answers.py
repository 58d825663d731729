"""Computes what the page of `hybrid-encoder app` shows: depth of a file, its surface, and closeness in words."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ..colormap import colorize
from ..config import DEPTH_WORDS, SIZE_MULTIPLE
from ..data.video import VIDEO_SUFFIXES, video_info
from ..engine.inference import inference
from ..errors import UserError
from ..images import read_image, resize_image
from ..model.closeness import closeness_map
from ..model.encoder import HybridEncoder
from ..model.language import align
from ..model.phrases import Words, phrase_features
from ..model.predictor import DepthPredictor
from ..prediction.mesh import write_mesh
from ..prediction.paths import predict_paths
from ..prediction.settings import PredictionSettings

Picture = np.ndarray


class Shown(NamedTuple):
    """The results of a file; of a video, only `video` and `files`."""

    pair: tuple[Picture, Picture] | None
    """The image and its depth in colours, uint8 RGB (H, W, 3)."""
    video: str | None
    surface: str | None
    """Path of a .glb file."""
    files: list[str]
    """Paths of the files to download."""


@dataclass
class Answers:
    """The models behind the page.

    Attributes:
        encoder: of stage 1; None: `closeness` raises an error.
        folder: for results; each request deletes those of the request before.
        max_frames: largest number of frames in a video.
        words: of CLIP, for phrases of any words.
    """

    model: DepthPredictor
    encoder: HybridEncoder | None
    device: torch.device
    folder: Path
    max_frames: int
    words: Words | None = None
    _last: Path | None = field(default=None, init=False)

    def depth(self, file: str, fov: float) -> Shown:
        """The depth of an image or a video.

        Args:
            fov: horizontal field of view in degrees, for the surface and the points.

        Raises:
            UserError: a file that cannot be read, or a video that is too long.
        """
        path, out = Path(file), self._new_folder()
        is_video = path.suffix.lower() in VIDEO_SUFFIXES
        if is_video and (frames := video_info(path).frames) > self.max_frames:
            raise UserError(
                f"the video has {frames} frames, and this page takes {self.max_frames}: cut it, or start the page with "
                "--max_frames"
            )
        settings = PredictionSettings(save_npy=True, points=not is_video, fov=fov, progress=False)
        with inference(self.device):
            written = predict_paths(self.model, [path], out, settings)
        if is_video:
            video = next(str(one) for one in written if one.suffix == ".mp4")
            return Shown(None, video, None, [str(one) for one in written])
        image = read_image(path)
        colours = read_image(next(one for one in written if one.stem.endswith("_disp")))
        surface = out / f"{path.stem}.glb"
        write_mesh(surface, image, np.load(next(one for one in written if one.suffix == ".npy")), fov)
        return Shown((image, colours), None, str(surface), [*map(str, written), str(surface)])

    def closeness(self, file: str, words: str) -> list[tuple[Picture, str]]:
        """A picture of the closeness of each cell, then a picture for each phrase: how well it fits each cell.

        Args:
            file: an image.
            words: phrases, near to far, between commas; empty: the seven of stage 1.

        Raises:
            UserError: no image, phrases that the encoder cannot read, or no stage-1 weights.
        """
        if self.encoder is None:
            raise UserError("closeness in words needs stage-1 weights: start with --stage1 FILE")
        if Path(file).suffix.lower() in VIDEO_SUFFIXES:
            raise UserError("closeness in words needs an image, not a video: drop an image")
        phrases = [phrase.strip() for phrase in words.split(",") if phrase.strip()] or list(DEPTH_WORDS)
        image = read_image(file)
        with torch.no_grad():
            fused = self.encoder.forward_features(self._seen(image)).fused
            texts = phrase_features(self.encoder, phrases, self.words)
            fits = align(torch.cat(fused, dim=1).float(), texts)[0].cpu().numpy()
            found = []
            if len(phrases) > 1:
                found.append((closeness_map(fused, texts, self.encoder.config)[0].cpu().numpy(), "closeness"))
        maps: Sequence[tuple[np.ndarray, str]] = [*found, *zip(fits, phrases, strict=True)]
        return [(_over(image, values), name) for values, name in maps]

    def _seen(self, image: np.ndarray) -> Tensor:
        """The image as the encoder's input, (1, 3, H, W) in [0, 1], of about the size of the depth model's input."""
        height, width = (side // SIZE_MULTIPLE * SIZE_MULTIPLE for side in (self.model.height, self.model.width))
        pixels = torch.from_numpy(resize_image(image, height, width)).permute(2, 0, 1)[None]
        return pixels.float().to(self.device) / 255

    def _new_folder(self) -> Path:
        if self._last is not None:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = Path(tempfile.mkdtemp(dir=self.folder))
        return self._last


def _over(image: np.ndarray, values: np.ndarray) -> Picture:
    """Values of cells as colours over the image; large is bright."""
    low, high = np.percentile(values, [2, 98])
    large = cv2.resize(values.astype(np.float32), (image.shape[1], image.shape[0]), interpolation=cv2.INTER_CUBIC)
    return cv2.addWeighted(colorize(large, low, high), 0.65, image, 0.35, 0)
