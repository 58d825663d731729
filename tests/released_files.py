"""Files as the authors' code writes them: of the paper's size with the values of the parity rule, and small ones."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hybrid_encoder.config import HybridEncoderConfig, preset
from hybrid_encoder.model.backbones import build_clip, build_timm
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.pose import PoseDecoder
from hybrid_encoder.model.resnet import ResnetEncoder
from hybrid_encoder.released.names import decoder_tensors

DATA = Path(__file__).parent / "data"
KEYS: dict[str, dict[str, Any]] = json.loads((DATA / "released_keys.json").read_text())
TINY_RELEASED = preset("tiny").replace(
    normalization="none", text_norm="matrix", position_resize="facebook", token_init="random",
    ranking="one_way", rank_order="far_to_near",
    stride4_skip=False, decoder_style="published",
)  # fmt: skip
"""Stands in for the preset `released` where the paper's size would be slow."""
FUSED = {"dinov2.": 64, "clip_align_conv.": 64}


@contextmanager
def no_random_start() -> Iterator[None]:
    """Parameters start with whatever is in memory: all of them are filled afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("trunc_normal_", "normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)
        yield


def parity_files() -> dict[str, dict[str, Tensor]]:
    """encoder.pth and depth.pth filled by the rule of the parity data, seed 0."""
    return {file: parity_tensors(f"{file[:-4]}.", keys) for file, keys in KEYS.items()}


def parity_tensors(prefix: str, keys: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors filled by the rule of the parity data, seed 0, whose names it puts behind `prefix`."""
    with ThreadPoolExecutor(2) as pool:  # drawing numbers releases the interpreter
        values = pool.map(_value, [f"{prefix}{key}" for key in keys], keys.values())
        return dict(zip(keys, values, strict=True))


def alive_head(decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """A depth.pth whose disparity is alive and small, as the parity data of training has it."""
    last = "depth_head.scratch.output_conv2.2"
    return {
        **decoder,
        f"{last}.weight": 0.05 * decoder[f"{last}.weight"],
        f"{last}.bias": torch.full_like(decoder[f"{last}.bias"], 0.15),
    }


def parity_image(seed: int = 7, width: int = 672) -> Tensor:
    """(1, 3, 224, width) in [0, 1]."""
    return smooth_noise(seed, (1, 3, 224, width))


def smooth_noise(seed: int, shape: tuple[int, ...], window: int = 9) -> Tensor:
    """Noise (B, C, H, W) averaged over windows, which spans [0, 1]."""
    noise = np.random.Generator(np.random.PCG64([seed, 0])).random(shape, dtype=np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(noise), (window // 2,) * 4, mode="reflect")
    smooth = torch.nn.functional.avg_pool2d(padded, window, stride=1)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def _value(name: str, spec: tuple[list[int], str]) -> Tensor:
    shape = tuple(spec[0])
    noise = np.random.Generator(np.random.PCG64([zlib.crc32(name.encode()), 0])).standard_normal(shape)
    n = torch.from_numpy(np.asarray(noise, dtype=np.float32))
    if name.endswith("running_var"):
        return 1 + 0.1 * n.abs()
    if name.endswith("running_mean"):
        return 0.1 * n
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    if name.endswith("output_conv2.2.bias"):
        return torch.full(shape, 3.0)
    if name.endswith("logit_scale"):
        return torch.tensor(float(np.log(1 / 0.07)))
    if "gamma" in name:
        return 0.5 + 0.1 * n
    if any(
        part in name for part in ("positional_embedding", "pos_embed", "token_embedding", "extra_tkns", "cls_token")
    ):
        return 0.02 * n
    if len(shape) < 2:
        return 1 + 0.1 * n if name.endswith("weight") else 0.02 * n
    return n / float(np.sqrt(np.prod(shape[1:])))


def pose_tensors(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The tensors of a pose net, which has the authors' names, by the parity rule."""
    return parity_tensors(prefix, {k: (list(v.shape), "") for k, v in module.state_dict().items()})


def aliases() -> dict[str, str]:
    """The second names of the towers' layers in ManyDepth's encoder.pth, and the first ones."""
    second = {}
    for name in KEYS["encoder.pth"]:
        if name.startswith("dinov2.blocks."):
            block, rest = name.removeprefix("dinov2.blocks.").split(".", 1)
            second[f"layer{int(block) // 3 + 1}_dino.{int(block) % 3}.{rest}"] = name
        elif name.startswith("dinov2.norm."):
            second[name.replace("dinov2.norm", "dino_norm")] = name
        elif name.startswith("clip.visual.layer"):
            level, rest = name[len("clip.visual.layer")], name[len("clip.visual.layer1.") :]
            second[f"layer{level}_clip.{'1.' if level == '1' else ''}{rest}"] = name
        for i, part in enumerate(("conv1", "bn1", "", "conv2", "bn2", "", "conv3", "bn3")):
            if part and name.startswith(f"clip.visual.{part}."):
                second[f"layer0_clip.{i}.{name.removeprefix(f'clip.visual.{part}.')}"] = name
    return second


def manydepth_files(files: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Any]]:
    """The files of a ManyDepth folder of the authors, those of the teacher left out.

    Args:
        files: `parity_files`, whose tensors they share.
    """
    joins = {"reduce_conv.0.0": 256, "reduce_conv.1.0": 768}
    extra: dict[str, Any] = {f"{k}.weight": ([n, n + 24, 3, 3], "") for k, n in joins.items()}
    extra |= {f"{k}.bias": ([n], "") for k, n in joins.items()}
    extra |= {"prematching_conv.0.weight": ([16, 64, 1, 1], ""), "prematching_conv.0.bias": ([16], "")}
    encoder: dict[str, Any] = {**files["encoder.pth"], **parity_tensors("encoder.", extra)}
    encoder |= {second: encoder[name] for second, name in aliases().items()}
    for name, (rows, columns) in {"clip": (56, 168), "dino": (16, 48)}.items():
        encoder[f"backprojector_{name}.id_coords"] = torch.zeros(2, rows, columns)
        encoder[f"backprojector_{name}.ones"] = torch.ones(24, 1, rows * columns)
        encoder[f"backprojector_{name}.pix_coords"] = torch.zeros(24, 3, rows * columns)
    assert len(encoder) == 1198
    return {
        "encoder": {**encoder, "height": 224, "width": 672, "min_depth_bin": 0.5, "max_depth_bin": 12.0},
        "depth": alive_head(files["depth.pth"]),
        **pose_files(),
    }


def pose_files() -> dict[str, dict[str, Tensor]]:
    """pose_encoder.pth and pose.pth of the authors' ResNet, by the parity rule."""
    resnet, head = ResnetEncoder(18, "random", 2), PoseDecoder(512, 1, 2)
    return {"pose_encoder": pose_tensors(resnet, "pose_encoder."), "pose": pose_tensors(head, "pose.")}


def teacher_files() -> dict[str, dict[str, Tensor]]:
    """mono_encoder.pth and mono_depth.pth by the parity rule."""
    return {
        "mono_encoder": parity_tensors("mono_encoder.", KEYS["encoder.pth"]),
        "mono_depth": alive_head(parity_tensors("mono_depth.", KEYS["depth.pth"])),
    }


def tiny_encoder(tokens: int = 5, dino: bool = True, image_tower: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """An encoder.pth of the authors around the tiny towers."""
    torch.manual_seed(seed)
    tensors = {f"clip.{name}": value for name, value in build_clip("tiny", "random").state_dict().items()}
    if dino:
        vit = build_timm("tiny", "random", "dino", num_classes=0, dynamic_img_size=True)
        tensors |= {f"dinov2.{name}": value for name, value in vit.state_dict().items()}
        tensors["dinov2.mask_token"] = torch.zeros(1, 64)
    if image_tower:
        for level, channels in ((1, 128), (2, 256), (3, 512)):
            tensors[f"clip_align_conv.{level}.weight"] = torch.randn(64, channels, 1, 1) / channels**0.5
            tensors[f"clip_align_conv.{level}.bias"] = torch.zeros(64)
    return tensors | {f"extra_tkns_learnables_depth.{i}": 0.02 * torch.randn(1, 32) for i in range(tokens)}


def tiny_decoder(config: HybridEncoderConfig) -> dict[str, Tensor]:
    """A depth.pth of the authors for a tiny encoder of this config."""
    ours = DPTDecoder(HybridEncoder(config), head="relu").state_dict()
    tensors = {}
    for name in KEYS["depth.pth"]:
        renamed = next(iter(decoder_tensors({name: torch.zeros(1)})), None)
        tensors[name] = ours[renamed].clone() if renamed is not None else torch.zeros(1)
    tensors["depth_head.scratch.output_conv2.2.bias"] += 0.5
    return tensors


def write_folder(folder: Path, config: HybridEncoderConfig | None = None, **towers: Any) -> Path:
    """A stage-2 folder around the tiny towers, of 64 x 96."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder = tiny_encoder(**towers)
    config = config or TINY_RELEASED.replace(num_tokens=5, pyramid=False)
    torch.save({**encoder, "height": 64, "width": 96, "use_stereo": True}, folder / "encoder.pth")
    torch.save(tiny_decoder(config), folder / "depth.pth")
    return folder
