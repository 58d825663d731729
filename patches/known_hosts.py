"""Recognises a host that the given patch files are not for, and says what to type there instead."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

BY_HAND_PAGE = "README says under 'Your own trainer'"
BY_HAND = f"Put the encoder in by hand, as {BY_HAND_PAGE}; docs/HOSTS.md lists hosts"


class KnownHost(NamedTuple):
    """A repository that other projects start from.

    Attributes:
        name: as in docs/HOSTS.md.
        file: a file by which this host is recognised; no host later in the list has it.
        word: a word in this file; "": any content will do.
        remedy: what to type.
    """

    name: str
    file: str
    word: str
    remedy: str


def _by_hand(encoder: str) -> str:
    return f"`encoder = hybrid_encoder.{encoder}` in the place of its own, as {BY_HAND_PAGE}"


KNOWN_HOSTS = (
    KnownHost("Mono-ViFI", "networks/IFRNet.py", "", "hybrid-encoder patch mono_vifi PATH"),
    KnownHost(
        "Lite-Mono",
        "networks/depth_encoder.py",
        "LiteMono",
        _by_hand('create_encoder("paper", num_ch_enc=(48, 80, 128), strides=(4, 8, 16))'),
    ),
    KnownHost(
        "MonoViT",
        "networks/mpvit.py",
        "",
        _by_hand('create_encoder("paper", num_ch_enc=(64, 128, 216, 288, 288))'),
    ),
    KnownHost(
        "DIFFNet",
        "networks/test_hr_encoder.py",
        "",
        _by_hand('create_encoder("paper", num_ch_enc=(64, 118, 36, 72, 144), nesting=(0, 1, 3, 2, 0))'),
    ),
    KnownHost("RA-Depth", "networks/depth_decoder_msf.py", "", _by_hand('create_encoder("paper")')),
    KnownHost("HR-Depth", "networks/HR_Depth_Decoder.py", "", _by_hand('create_encoder("paper")')),
    KnownHost(
        "SQLdepth",
        "SQLdepth.py",
        "",
        _by_hand('create_encoder("paper", num_ch_enc=(64, 256, 512, 1024, 2048))'),
    ),
    KnownHost("sc_depth_pl", "SC_Depth.py", "", _by_hand('create_encoder("paper")')),
    KnownHost(
        "slowtv_monodepth",
        "src/networks/decoders/cadepth.py",
        "",
        "import hybrid_encoder.adapters.timm_models, and choose the encoder hybrid_encoder_paper",
    ),
    KnownHost("ManyDepth", "manydepth/trainer.py", "", "hybrid-encoder patch manydepth PATH"),
    KnownHost("Monodepth2", "evaluate_pose.py", "networks", "hybrid-encoder patch monodepth2 PATH"),
)


def advice(folder: Path, host: str) -> str:
    """One sentence on what to do with a folder that the patches of a host are not for."""
    for known in KNOWN_HOSTS:
        itself = known.remedy.startswith(f"hybrid-encoder patch {host} ")
        if not itself and _holds(folder / known.file, known.word):
            return f"This looks like {known.name} ({known.file}): {known.remedy.replace('PATH', str(folder))}"
    packages = sorted(file.parent.name for file in folder.glob("*/trainer.py") if (file.parent / "networks").is_dir())
    if host == "manydepth" and packages and packages != ["manydepth"]:
        return f"If this is ManyDepth with its package renamed, add --package {packages[0]}. Else: {BY_HAND}"
    return BY_HAND


def _holds(file: Path, word: str) -> bool:
    try:
        return word in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
