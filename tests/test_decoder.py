"""The DPT decoder's smooth style and the stride-4 skip: no frame, no grid, no dead head, finer maps."""

import pytest
import torch

from hybrid_encoder import DPTDecoder, HybridEncoder, create_encoder
from hybrid_encoder.config import preset
from hybrid_encoder.model.contract import EncoderFeatures

SCALES = (0, 1, 2, 3)
GRID = (8, 24)


def built(**changes: object) -> tuple[HybridEncoder, DPTDecoder]:
    torch.manual_seed(0)
    encoder = create_encoder("tiny", pyramid=False, **changes)
    return encoder, DPTDecoder(encoder, SCALES).eval()


def features_of(encoder: HybridEncoder, columns: torch.Tensor) -> EncoderFeatures:
    """Features whose values depend on the column alone: four levels on a grid of 8 pixels, and the stride-4 map."""
    rows, width = GRID
    assert columns.shape == (width,)

    def spread(channels: int, finer: int) -> torch.Tensor:
        weights = torch.linspace(-1, 1, channels).view(1, channels, 1, 1)
        return weights * columns.repeat_interleave(finer).expand(1, 1, rows * finer, width * finer)

    levels = [spread(channels, 1) for channels in encoder.aligned_channels]
    return EncoderFeatures([], levels, [], None, (8 * rows, 8 * width), spread(encoder.stride4_channels, 2))


def unevenness(decoder: DPTDecoder, features: EncoderFeatures) -> float:
    """The largest spread of disparity over an image, of all scales, relative to its mean."""
    with torch.no_grad():
        return max(((d.amax() - d.amin()) / d.mean()).item() for d in decoder(features).values())


def test_features_that_are_constant_give_constant_depth() -> None:
    """No frame at the border and no grid; the published style shows both."""
    encoder, decoder = built()
    assert unevenness(decoder, features_of(encoder, torch.ones(GRID[1]))) < 1e-5
    published, marked = built(decoder_style="published")
    assert unevenness(marked, features_of(published, torch.ones(GRID[1]))) > 1e-3


def moved_difference(encoder: HybridEncoder, decoder: DPTDecoder) -> float:
    """How far depth of a bump two cells of the grid, 16 pixels, to the right is from depth that moved with it: the
    largest difference away from the border, relative to the bump."""
    columns = torch.zeros(GRID[1])
    columns[10] = 1.0
    with torch.no_grad():
        here = decoder(features_of(encoder, columns))["disp", 0]
        there = decoder(features_of(encoder, columns.roll(2)))["disp", 0]
    return ((there[..., 64:128] - here[..., 48:112]).abs().max() / (here.amax() - here.amin())).item()


def test_depth_moves_with_the_features() -> None:
    assert moved_difference(*built()) < 1e-3
    assert moved_difference(*built(decoder_style="published")) > 1e-2


def test_a_head_whose_units_are_all_below_0_still_learns() -> None:
    encoder, decoder = built()
    head = decoder.heads["0"]
    with torch.no_grad():
        head.conv2.bias.fill_(-100.0)
    decoder(encoder.forward_features(torch.rand(1, 3, 64, 96)))["disp", 0].mean().backward()
    assert head.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "changes", [{}, {"pyramid": True}, {"num_ch_enc": (24, 48, 96), "strides": (4, 8, 16)}], ids=str
)
def test_the_stride_4_map_reaches_all_readers(changes: dict[str, object]) -> None:
    """Every part trains, and what the fused grid cannot see changes the finest maps."""
    torch.manual_seed(0)
    encoder = create_encoder("tiny", **{"pyramid": bool(changes), **changes})
    features = encoder.forward_features(torch.rand(2, 3, 64, 96))
    assert features.stride4 is not None
    assert features.stride4.shape == (2, encoder.stride4_channels, 16, 24)
    read = encoder.drop_in_maps(features) if encoder.pyramid else list(DPTDecoder(encoder)(features).values())
    sum(found.sum() for found in read).backward()
    reading = encoder.pyramid.skip if encoder.pyramid else [encoder]
    assert all(p.grad is not None for part in reading for p in part.parameters() if p.requires_grad)
    blind = EncoderFeatures(
        features.fused, features.aligned, [], None, features.image_size, torch.zeros_like(features.stride4)
    )
    unseen = encoder.drop_in_maps(blind) if encoder.pyramid else list(DPTDecoder(encoder)(blind).values())
    assert (unseen[0] - read[0]).abs().max() > 1e-4


def test_published_weights_have_no_skip_and_transformers_no_such_map() -> None:
    for name in ("paper", "released", "small", "dinov3"):
        assert not preset(name).stride4_skip
        assert preset(name).decoder_style == "published"
    encoder = create_encoder("tiny", image_tower=None)
    assert encoder.stride4_channels == 0
    assert encoder.forward_features(torch.rand(1, 3, 64, 64)).stride4 is None
