"""Reads camera calibration: KITTI's text files, a JSON file of intrinsics, or "fx,fy,cx,cy"; all values are checked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..config import MAX_SIDE
from ..errors import UserError
from .text import read_text

KITTI_NORMALISED_K = np.array([[0.58, 0.0, 0.5], [0.0, 1.92, 0.5], [0.0, 0.0, 1.0]])
"""KITTI's intrinsics where a drive has no calibration file (Monodepth2): first row x width, second row x height."""

FOCAL_RANGE = (0.1, 100.0)
"""Focal lengths that are accepted, as multiples of the image's longer side (the shortest sees 157 degrees)."""
MIN_FOCAL_PIXELS = 8.0
ASPECT_TOLERANCE = 0.01
REMEDY = (
    "expected fx,fy,cx,cy in pixels of the source frames, or a JSON file with K, image_size and, if wanted, "
    "dist_k1k2p1p2k3"
)
Maps = tuple[np.ndarray, np.ndarray]
CAMERAS = {"l": 2, "r": 3}
"""Number of KITTI's colour camera on each side."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """A pinhole camera, with lens distortion if it is known. Build it with `read_intrinsics`, which checks the
    values."""

    K: np.ndarray
    """float64 (3, 3), pixels of an image of `image_size`."""
    image_size: tuple[int, int] | None = None
    """(width, height) of the images that K is for; None: K fits the images as they are."""
    distortion: np.ndarray | None = None
    """float64 (5,): k1, k2, p1, p2, k3 as OpenCV defines them; None: no distortion."""
    origin: str = "intrinsics"
    """Where they come from, for messages."""

    def for_image(self, width: int, height: int) -> Intrinsics:
        """The intrinsics of the same camera for images of another size; they are checked against that size.

        Raises:
            UserError: other proportions than those of `image_size` (the images may be cropped or squeezed, which cannot
                be seen), or values that make no sense for images of this size.
        """
        remedy = "give the intrinsics of the frames as they are"
        x, y = view_scale(self.image_size or (width, height), (width, height), self.origin, remedy)
        scaled = Intrinsics(self.K * np.array([[x], [y], [1.0]]), (width, height), self.distortion, self.origin)
        scaled._check()
        return scaled

    def _check(self) -> None:
        assert self.image_size is not None
        (width, height), (fx, fy, cx, cy) = self.image_size, self.K[(0, 1, 0, 1), (0, 1, 2, 2)]
        low, high = (factor * max(width, height) for factor in FOCAL_RANGE)
        if not (low <= fx <= high and low <= fy <= high):
            raise UserError(
                f"{self.origin}: focal lengths {fx:g}, {fy:g} make no sense for images of {width}x{height}: expected "
                f"pixels, between {low:g} and {high:g}"
            )
        if not (0 <= cx <= width and 0 <= cy <= height):
            raise UserError(
                f"{self.origin}: the principal point {cx:g}, {cy:g} lies outside images of {width}x{height}: expected "
                f"pixels, near {width / 2:g}, {height / 2:g}"
            )
        if self.distortion is not None and self._folds(width, height):
            raise UserError(
                f"{self.origin}: with dist_k1k2p1p2k3 {self.distortion.tolist()} the image of "
                f"{width}x{height} folds over "
                "itself: these are not the coefficients of this camera, or not in the order k1, k2, p1, p2, k3"
            )

    def _folds(self, width: int, height: int) -> bool:
        """Whether the distorted radius stops growing somewhere within the image."""
        assert self.distortion is not None
        (fx, fy, cx, cy), (k1, k2, p1, p2, k3) = self.K[(0, 1, 0, 1), (0, 1, 2, 2)], self.distortion
        farthest = np.hypot(max(cx, width - cx) / fx, max(cy, height - cy) / fy)
        squared = np.linspace(0, farthest, 100) ** 2
        slope = 1 + squared * (3 * k1 + squared * (5 * k2 + squared * 7 * k3)) - 6 * farthest * (abs(p1) + abs(p2))
        return bool((slope <= 0).any())


def view_scale(own: tuple[int, int], image: tuple[int, int], origin: str, remedy: str) -> tuple[float, float]:
    """Factors of x and y from pixels of an image of size `own` to pixels of the same view in size `image`.

    Args:
        own, image: (width, height).
        origin, remedy: for messages: what was made for `own`, and what to do where it does not fit.

    Raises:
        UserError: other proportions: the image may be cropped or squeezed, which cannot be seen.

    >>> view_scale((1242, 375), (621, 188), "K", "")
    (0.5, 0.5013333333333333)
    """
    x, y = image[0] / own[0], image[1] / own[1]
    if abs(x / y - 1) > ASPECT_TOLERANCE:
        raise UserError(
            f"{origin}: made for images of {own[0]}x{own[1]}, but these are {image[0]}x{image[1]}, which has other "
            f"proportions: {remedy}"
        )
    return x, y


def read_intrinsics(value: str | Path) -> Intrinsics:
    """Intrinsics from "fx,fy,cx,cy" (pixels) or from a JSON file.

    The file holds `K` (3 rows of 3), `image_size` [width, height] and optionally `dist_k1k2p1p2k3` (five numbers).

    Raises:
        UserError: neither four numbers nor such a file, or values that no camera has.
    """
    text = str(value)
    if "," in text and all(NUMBER.fullmatch(part.strip()) for part in text.split(",")):
        numbers = [float(part) for part in text.split(",")]
        origin = f"intrinsics {text!r}"
        if len(numbers) != 4:
            raise UserError(f"{origin}: {len(numbers)} numbers, {REMEDY}")
        fx, fy, cx, cy = numbers
        return Intrinsics(check_matrix(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), origin), origin=origin)
    return _read_json(Path(text))


def intrinsics_text(K: np.ndarray, image_size: tuple[int, int]) -> str:
    """JSON that `read_intrinsics` takes: (3, 3) in pixels of images of (width, height)."""
    return json.dumps({"K": K.tolist(), "image_size": list(image_size)}) + "\n"


def _read_json(path: Path) -> Intrinsics:
    origin = f"intrinsics file {path}"
    try:
        data = json.loads(path.read_bytes())  # accepts a byte-order mark, too
    except (OSError, ValueError, RecursionError) as error:  # bad UTF-8, JSON or path are ValueErrors
        if isinstance(error, json.JSONDecodeError):
            raise UserError(f"{origin}, line {error.lineno}: no valid JSON ({error.msg})") from error
        raise UserError(f"{origin} cannot be read ({error}): {REMEDY}") from error
    if not isinstance(data, dict) or "K" not in data or "image_size" not in data:
        raise UserError(f"{origin}: no object with the keys K and image_size; {REMEDY}")
    K = check_matrix(_numbers(data["K"], (3, 3), f"{origin}: K"), origin)
    width, height = _size(_numbers(data["image_size"], (2,), f"{origin}: image_size"), f"{origin}: image_size")
    distortion = data.get("dist_k1k2p1p2k3")
    if distortion is not None:
        distortion = _numbers(distortion, (5,), f"{origin}: dist_k1k2p1p2k3")
    return Intrinsics(K, (width, height), distortion, origin).for_image(width, height)


def _size(values: np.ndarray, what: str) -> tuple[int, int]:
    if not ((values >= 1) & (values <= MAX_SIDE) & (values == values.round())).all():
        raise UserError(f"{what} {values.tolist()} is not [width, height] in whole pixels")
    return int(values[0]), int(values[1])


def _numbers(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    def is_number(item: Any) -> bool:
        return isinstance(item, (int, float)) and not isinstance(item, bool) and abs(item) < 1e15  # False for NaN too

    def fits(item: Any, shape: tuple[int, ...]) -> bool:
        if not shape:
            return is_number(item)
        return isinstance(item, list) and len(item) == shape[0] and all(fits(part, shape[1:]) for part in item)

    if not fits(value, shape):
        form = f"{shape[0]} rows of {shape[1]}" if len(shape) == 2 else f"a list of {shape[0]}"
        raise UserError(f"{what}: found {str(value)[:100]}, expected {form} finite numbers")
    return np.array(value, dtype=np.float64)


def check_matrix(K: np.ndarray, origin: str) -> np.ndarray:
    """Checks K, (3, 3), in pixels, and returns it.

    Raises:
        UserError: K is not that of a pinhole camera without skew, or its values are no pixels.
    """
    fx, fy = K[0, 0], K[1, 1]
    if not np.isfinite(K).all() or np.abs(K).max() > 1e7:
        raise UserError(f"{origin}: values that are no pixels; {REMEDY}")
    if not np.allclose(K, [[fx, 0, K[0, 2]], [0, fy, K[1, 2]], [0, 0, 1]], rtol=0, atol=1e-6):
        raise UserError(f"{origin}: K is {K.tolist()}, expected the form [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    if min(fx, fy) < MIN_FOCAL_PIXELS:
        hint = "; are they fractions of width and height? then multiply them out" if min(fx, fy) > 0 else ""
        raise UserError(f"{origin}: focal lengths {fx:g}, {fy:g} are too short to be pixels{hint}")
    return K


def check_rotation(matrix: np.ndarray, origin: str) -> np.ndarray:
    """Checks a matrix (3, 3), and returns it.

    Raises:
        UserError: it is no rotation.
    """
    bounded = np.abs(matrix).max() <= 2  # else its square may be infinite
    if not bounded or not np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-2) or np.linalg.det(matrix) < 0:
        raise UserError(f"{origin} is no rotation: {matrix.round(3).tolist()}")
    return matrix


class Undistorter:
    """Removes the lens distortion from a camera's images; K does not change. Without known distortion, does nothing.

    Where the undistorted image reaches beyond the source (pincushion distortion), it is black.
    """

    def __init__(self, intrinsics: Intrinsics | None) -> None:
        self.intrinsics = intrinsics
        self._size = (0, 0)
        self._maps: Maps | None = None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> same, of any size.

        Raises:
            UserError: the image has other proportions than the camera's.
        """
        if self.intrinsics is None or self.intrinsics.distortion is None:
            return image
        size = (image.shape[1], image.shape[0])
        if self._maps is None or size != self._size:
            K = self.intrinsics.for_image(*size).K
            distortion, identity = self.intrinsics.distortion, np.eye(3)
            first, second = cv2.initUndistortRectifyMap(K, distortion, identity, K, size, cv2.CV_16SC2)
            self._size, self._maps = size, (np.asarray(first), np.asarray(second))
        return cv2.remap(image, *self._maps, cv2.INTER_LINEAR)


def read_calibration(path: str | Path) -> dict[str, np.ndarray]:
    """A calibration text file of KITTI (raw or odometry): "key: numbers" lines -> {key: float64 (N,)}.

    `calib_time` and other entries that do not begin with a number are left out.

    Raises:
        UserError: a missing file, a line of another form, a non-finite value, or a key that occurs twice.
    """
    path = Path(path)
    entries: dict[str, np.ndarray] = {}
    for number, line in enumerate(read_text(path, "calibration file").split("\n"), start=1):
        if not line.strip():
            continue
        key, colon, rest = (part.strip() for part in line.partition(":"))
        where = f"{path}, line {number}"
        if not colon or not key:
            raise UserError(f'{where}: {line.strip()[:100]!r} is not of the form "key: numbers"')
        fields = rest.split()
        if not fields or key == "calib_time" or not NUMBER.fullmatch(fields[0]):
            continue
        values = [float(field) if NUMBER.fullmatch(field) else float("nan") for field in fields]
        if not np.isfinite(values).all():
            raise UserError(f"{where}: {key} holds something other than finite numbers: {rest[:100]!r}")
        if key in entries:
            raise UserError(f"{where}: {key} comes a second time; use KITTI's own calibration file")
        entries[key] = np.array(values)
    return entries


def kitti_intrinsics(path: str | Path, projection_key: str, size_key: str | None = None) -> Intrinsics:
    """Intrinsics of a rectified KITTI camera: the left 3x3 block of `projection_key` (P_rect_02, P2, ...).

    Args:
        path: calib_cam_to_cam.txt of a day (raw), or calib.txt of a sequence (odometry).
        size_key: entry with the images' width and height (S_rect_02); None: K fits the images as they are.

    Raises:
        UserError: a missing or damaged file or entry, or values that no camera has.
    """
    calibration, origin = read_calibration(path), f"calibration file {path}, {projection_key}"
    for key, count in ((projection_key, 12), (size_key, 2)):
        if key and (key not in calibration or len(calibration[key]) != count):
            found = f"{len(calibration[key])} numbers" if key in calibration else "no such entry"
            raise UserError(f"{path}: {key}: {found}, expected {count} numbers; use KITTI's own calibration file")
    K = check_matrix(calibration[projection_key].reshape(3, 4)[:, :3], origin)
    if size_key is None:
        return Intrinsics(K, None, None, origin)
    width, height = _size(calibration[size_key], f"{path}: {size_key}")
    return Intrinsics(K, (width, height), None, origin).for_image(width, height)


def default_kitti_intrinsics(width: int, height: int) -> Intrinsics:
    """KITTI's average camera (`KITTI_NORMALISED_K`) for images of this size."""
    K = KITTI_NORMALISED_K * np.array([[width], [height], [1.0]])
    return Intrinsics(K, (width, height), None, "KITTI's default")
