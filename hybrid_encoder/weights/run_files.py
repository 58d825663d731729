"""Names of the files that training runs keep their weights in; those of a folder of weights are the originals'."""

from __future__ import annotations

from pathlib import Path

STAGE1_FILE = "stage1.pth"
"""Stage 1's encoder, in the folder of its run, and in some folders of weights that ship with the package."""
SINGLE_FRAME_FILES = ("encoder", "depth")
TEACHER_FILES = ("mono_encoder", "mono_depth")
"""Encoder and decoder of ManyDepth's single-frame teacher, without `.pth`, beside those of its two-frame net."""


def has_teacher(folder: Path) -> bool:
    """Whether a folder of weights is of a two-frame run."""
    return (folder / f"{TEACHER_FILES[0]}.pth").exists()


def single_frame_files(folder: Path) -> tuple[str, str]:
    """The files of the encoder and the decoder that predict depth from one frame, without `.pth`."""
    return TEACHER_FILES if has_teacher(folder) else SINGLE_FRAME_FILES
