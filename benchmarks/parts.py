"""Compares parts of the method with plain implementations, in one run on one machine.

    python benchmarks/parts.py encoder [--preset paper] [--height 224] [--width 672] [--repeats 5] [--json FILE]
    python benchmarks/parts.py stage1

`encoder`: inference; the plain side runs the text tower over all 77 positions for every image, as the authors' code.
`stage1`: sampling and losses of 6 images with 4 lanes each; the plain side loops over lanes and points.
The options are those of `hybrid-encoder bench`. Prints rows of benchmarks/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from hybrid_encoder.commands.bench import build_config, report, time_inference
from hybrid_encoder.commands.measuring import Measures, median_seconds
from hybrid_encoder.commands.options import BenchOptions
from hybrid_encoder.engine.inference import prepare
from hybrid_encoder.engine.processes import choose_device
from hybrid_encoder.model.backbones import build_clip
from hybrid_encoder.model.decoder import DPTDecoder
from hybrid_encoder.model.encoder import HybridEncoder
from hybrid_encoder.model.language import Language
from hybrid_encoder.options import add_options, option, read_options
from hybrid_encoder.stage1.losses import ordinal_contrastive_loss, ranking_loss
from hybrid_encoder.stage1.patch_features import patch_features, patch_logits

IMAGES, LANES, POINTS, CHANNELS, CELLS, SIDE = 6, 4, 7, 1024, 16, 224
"""Sizes in stage 1: images, lanes per image, points per lane, width of patch features, cells and pixels per side."""


@dataclass(frozen=True)
class PartsOptions(BenchOptions):
    """The options of `hybrid-encoder bench`, for the parts that are compared here."""

    part: Literal["encoder", "stage1"] = option("encoder", "", positional=True)  # type: ignore[assignment]


class PerImageText(nn.Module):
    """Text features over all positions of every prompt, computed again at every call."""

    ids: Tensor

    def __init__(self, clip: Any, language: Language, context_length: int = 77) -> None:
        super().__init__()
        self.clip, self.slot = clip, language.slot
        tokenize = open_clip.SimpleTokenizer(context_length=context_length)
        self.register_buffer("ids", tokenize(["This patch appears to be x"]))
        self.tokens = language.tokens

    def forward(self) -> Tensor:
        """(K, D), each of length 1."""
        clip = self.clip
        prompts = clip.token_embedding(self.ids).repeat(len(self.tokens), 1, 1)
        prompts[:, self.slot] = self.tokens
        length = prompts.shape[1]
        mask = clip.attn_mask[:length, :length]
        x = clip.transformer(prompts + clip.positional_embedding[:length], attn_mask=mask)
        ends = self.ids.argmax(-1).expand(len(x))
        x = clip.ln_final(x)[torch.arange(len(x), device=x.device), ends] @ clip.text_projection
        return F.normalize(x, dim=-1)


def whole_clip(name: str) -> Any:
    """open_clip's model with random weights. `TinyClip` cannot read text by itself: a model of its sizes is built."""
    if name != "tiny":
        return build_clip(name, "random")
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64, patch_size=None)
    return CLIP(64, vision, CLIPTextCfg(width=32, heads=2, layers=2), quick_gelu=True)


def compare_encoder(options: PartsOptions, device: torch.device) -> Measures:
    """Compares inference with cached text features and with text features computed for every image."""
    torch.manual_seed(0)
    config = build_config(options).replace(pyramid=False)
    clip = whole_clip(config.clip)
    encoder = HybridEncoder(config)
    encoder.language = Language(clip, config)
    decoder = DPTDecoder(encoder)
    slow_text = PerImageText(clip, encoder.language)
    for module in (encoder, decoder, slow_text):
        prepare(module, device)
    ours, ours_decoder, fast = time_inference(encoder, decoder, options, device)
    # A plain function: a module would be registered as a child and leave the method in place.
    encoder.language.text_features = lambda: slow_text()  # type: ignore[method-assign]
    slow, slow_decoder, expected = time_inference(encoder, decoder, options, device)
    return {
        "encoder_seconds": ours,
        "encoder_decoder_seconds": ours_decoder,
        "images_per_second": options.batch_size / ours_decoder,
        "per_image_text_encoder_seconds": slow,
        "per_image_text_encoder_decoder_seconds": slow_decoder,
        "ratio_encoder": slow / ours,
        "ratio_encoder_decoder": slow_decoder / ours_decoder,
        "largest_difference": float((expected.float() - fast.float()).abs().max()),
    }


def compare_stage1(options: PartsOptions, device: torch.device) -> Measures:
    """Compares sampling and losses of stage 1, forward and backward, with the same as a loop."""
    torch.manual_seed(0)
    shape = (IMAGES, CHANNELS, CELLS, CELLS)
    levels = [torch.randn(shape, device=device).requires_grad_() for _ in range(4)]
    points = torch.rand(IMAGES * LANES, POINTS, 2, device=device) * (SIDE - 1)
    owner = torch.arange(IMAGES, device=device).repeat_interleave(LANES)
    text = F.normalize(torch.randn(POINTS, CHANNELS, device=device), dim=-1)

    def vectorised() -> Tensor:
        features = patch_features(levels, points, owner, (SIDE, SIDE), CHANNELS)
        return ranking_loss(patch_logits(features, text)) + ordinal_contrastive_loss(features)

    def looped() -> Tensor:
        return looped_losses(levels, points, owner, text)

    def timed(loss: Callable[[], Tensor]) -> float:
        return median_seconds(lambda: loss().backward(), options.repeats, device)

    fast, slow = timed(vectorised), timed(looped)
    ours, theirs = float(vectorised().detach()), float(looped().detach())
    difference = abs(ours - theirs) / abs(theirs)
    return {"vectorised_seconds": fast, "loop_seconds": slow, "ratio": slow / fast, "relative_difference": difference}


def looped_losses(levels: Sequence[Tensor], points: Tensor, owner: Tensor, text: Tensor) -> Tensor:
    """The sum of stage 1's ranking and ordinal contrastive losses, lane after lane, pair after pair."""
    total = text.new_zeros(())
    for lane in range(len(points)):
        patches = []
        for point in range(POINTS):
            x, y = (int(v) for v in points[lane, point] / SIDE * CELLS)
            patch = torch.cat([level[owner[lane], :, y, x] for level in levels])
            patch = F.interpolate(patch[None, None], size=CHANNELS, mode="nearest")[0, 0]
            patches.append(F.normalize(patch, dim=0))
        logits = [[100 * (patch * prompt).sum() for prompt in text] for patch in patches]
        for j in range(POINTS):
            for i in range(j):
                total = total + F.relu(logits[i][j] - logits[j][j]) / len(points)
        for i in range(POINTS):
            for j in range(POINTS):
                weight = abs(i - j) / (POINTS - 1) / POINTS**2
                total = total + weight * (patches[i] * patches[j]).sum() / len(points)
    return total


PARTS: dict[str, Callable[[PartsOptions, torch.device], Measures]] = {
    "encoder": compare_encoder,
    "stage1": compare_stage1,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the measures of both sides and their ratios, and writes them to `--json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, PartsOptions)
    options = read_options(PartsOptions, parser.parse_args(arguments))
    device = choose_device(options.device)
    report(options, device, PARTS[options.part](options, device))


if __name__ == "__main__":
    main()
