"""The hybrid encoder: towers, fusion, language and pyramid, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ..config import PRESETS, SIZE_MULTIPLE, HybridEncoderConfig, PresetName, check_image_size, preset
from ..errors import UserError
from ..weights.hub import HubModel, Saved, looks_like_source
from ..weights.published import towers_and_licences
from .backbones import build_clip, build_image_tower, build_timm
from .channels import Channels
from .closeness import closeness_map
from .contract import DepthEncoder, EncoderFeatures
from .conv_tower import ConvTower
from .dino_tower import DinoOutput, DinoTower
from .fusion import Fusion
from .image_towers import clip_image_tower, timm_image_tower
from .language import Language, align
from .pyramid import Pyramid, crop_maps, nest_maps, pad_image
from .tower import Tower, choose_normalization

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .config_changes import ConfigChanges

_GRID_WITHOUT_DINO = 16
"""Stride of the fused levels of an encoder without DINO."""


HybridFeatures = EncoderFeatures
"""Public name of the hybrid encoder's features of an image."""


class HybridEncoder(HubModel, DepthEncoder):
    """CLIP and DINO, fused and aligned with language about distance (Hybrid-depth, arXiv 2510.09320).

    Called on `image: (B, 3, H, W)`, RGB in [0, 1], H and W multiples of 32, it returns five maps at strides 2, 4, 8,
    16, 32 with `num_ch_enc` channels, as ResNet encoders of the Monodepth2 family do. The config may ask for other
    maps, for maps in lists, and for images of any size. `forward_features` gives the levels that the DPT decoder takes.

    Attributes:
        config: what the encoder was built from.
        num_ch_enc, strides: channels and strides of the maps, by default [64, 64, 128, 256, 512] at (2, 4, 8, 16, 32).
        fused_channels, aligned_channels: channels of the four levels, before and after alignment.
        class_width: length of the class token, 0 without DINO.
    """

    hub_kind = "HybridEncoder"
    config: HybridEncoderConfig

    def __init__(self, config: HybridEncoderConfig, weights_dir: str | Path | None = None) -> None:
        """
        Args:
            weights_dir: as for `create_encoder`.
        """
        super().__init__()
        self.config = config
        self.about: dict[str, str] = {"towers": towers_and_licences(config)}
        clip = build_clip(config.clip, config.clip_weights, weights_dir)
        self.image_tower: Tower | None = None
        if config.image_tower == "clip":
            self.image_tower = clip_image_tower(clip.visual, config.normalization)
        elif config.image_tower is not None:
            model = build_image_tower(config.image_tower, config.image_tower_weights, weights_dir)
            self.image_tower = timm_image_tower(model, config.normalization)
        if self.image_tower is not None and not config.train_image_tower:
            self.image_tower.freeze(*self.image_tower.children())
        self.dino = _build_dino(config, weights_dir)
        self.fusion = Fusion(
            self.image_tower.channels if self.image_tower else None,
            self.dino.channels if self.dino else None,
            config.fusion_channels,
            config.fusion,
            config.convs2_output_padding,
        )
        self.language = Language(clip, config)
        self.fused_channels = self.fusion.channels
        extra = {"concat": config.num_tokens, "replace": config.num_tokens, "none": 0}[config.alignment]
        kept = (0,) * 4 if config.alignment == "replace" else self.fused_channels
        self.aligned_channels = tuple(extra + c for c in kept)
        self.class_width = self.dino.channels[0] if self.dino else 0
        tower = self.image_tower
        self.stride4_channels = tower.channels[0] if config.stride4_skip and isinstance(tower, ConvTower) else 0
        self.num_ch_enc, self.strides = Channels(config.num_ch_enc), config.strides
        self.pyramid = Pyramid(self, config) if config.pyramid else None
        if config.alignment == "none":
            self.language.tokens.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Any]:
        """(B, 3, H, W) in [0, 1] -> maps (B, num_ch_enc[i], H / strides[i], W / strides[i]), nested as the config says.

        Raises:
            UserError: a side is no multiple of 32, unless the config says size="pad"; or pyramid=False.
        """
        if self.config.size == "pad":
            maps = super().forward(pad_image(image))
            maps = crop_maps(maps, self.strides, (image.shape[-2], image.shape[-1]))
        else:
            maps = super().forward(image)
        return nest_maps(maps, self.config.nesting)

    def drop_in_maps(self, features: EncoderFeatures) -> list[Tensor]:
        """The maps of `forward`, from features that were computed before; neither cropped nor nested.

        Raises:
            UserError: the encoder was built with pyramid=False.
        """
        if self.pyramid is None:
            raise UserError("this encoder was built with pyramid=False for a DPT decoder: build it with pyramid=True")
        return self.pyramid(features)

    def forward_features(self, image: Tensor) -> EncoderFeatures:
        """(B, 3, H, W) in [0, 1] -> fused and aligned levels, logits and class token.

        H and W are multiples of 32, which the pyramid needs. Without a pyramid they may be multiples of the side of
        DINO's patches: the released stage 1 ran at 224 x 392.

        Raises:
            UserError: no batch of RGB images, or a side that is not such a multiple.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise UserError(f"image of shape {tuple(image.shape)}: expected (B, 3, H, W), RGB in [0, 1]")
        self.check_size(*image.shape[-2:])
        # Text comes first, because torch.compile breaks its graph where cached text is looked up: all that sees the
        # image then stays in one graph.
        text = self.text()
        maps = self.image_tower(image) if self.image_tower is not None else None
        return self.combine(image, maps, text)

    def check_size(self, height: int, width: int) -> None:
        """Raises `UserError` for image sizes that `forward_features` does not take."""
        patch = self.dino.patch if self.dino is not None and self.pyramid is None else SIZE_MULTIPLE
        # 32 before the patch: a comparison that fails becomes a condition of torch.export's program, too.
        for unit in (SIZE_MULTIPLE, patch):
            if all(side > 0 and side % unit == 0 for side in (height, width)):
                return
        check_image_size(height, width)

    def closeness(self, image: Tensor, ranking: Literal["one_way", "both_ways"] | None = None) -> Tensor:
        """How close every cell of an image appears, for weights of stage 1, ours of any variant or the authors'.

        Weights of stage 2 do not serve: it trains the fused levels further, for depth.

        Args:
            image: (B, 3, H, W) in [0, 1], as for `forward_features`.
            ranking: how stage 1 ranked patches; None: what the weights say.

        Returns:
            (B, h, w) float32 on the grid of the fused levels, larger is nearer; only differences within an image count.

        Raises:
            UserError: as `forward_features`; or neither the argument nor the weights say how patches were ranked.
        """
        config = self.config if ranking is None else self.config.replace(ranking=ranking)
        return closeness_map(self.forward_features(image).fused, self.language.word_features(), config)

    def class_token(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, class_width): DINO alone runs.

        Raises:
            UserError: there is no DINO.
        """
        token = None if self.dino is None else self.dino(image).class_token
        return super().class_token(image) if token is None else token

    def text(self) -> Tensor | None:
        """(K, D) the depth tokens' text features; None without alignment."""
        return self.language.text_features() if self.config.alignment != "none" else None

    def combine(self, image: Tensor, image_maps: list[Tensor] | None, text: Tensor | None) -> EncoderFeatures:
        """The rest of `forward_features` after the image tower; matching encoders compute its maps themselves.

        Args:
            image: (B, 3, H, W).
            image_maps: the image tower's four maps, None without it.
            text: as `text` gives them.
        """
        seen: DinoOutput | None = self.dino(image) if self.dino is not None else None
        height, width = image.shape[-2:]
        if seen is not None:
            rows, columns = seen.maps[0].shape[-2:]
        else:
            rows, columns = height // _GRID_WITHOUT_DINO, width // _GRID_WITHOUT_DINO
        fused = self.fusion(image_maps, seen.maps if seen else None, (rows, columns))
        logits, aligned = [], fused
        if text is not None:
            logits = [align(level, text) for level in fused]
            aligned = logits
            if self.config.alignment == "concat":
                aligned = [torch.cat(pair, dim=1) for pair in zip(logits, fused, strict=True)]
        stride4 = image_maps[0] if image_maps is not None and self.stride4_channels else None
        return EncoderFeatures(fused, aligned, logits, seen.class_token if seen else None, (height, width), stride4)

    def parameter_groups(
        self, lr: float, weight_decay: float = 0.01, rates: Mapping[str, float] | None = None
    ) -> list[dict[str, Any]]:
        """The trainable parameters as groups for an optimiser: with weight decay for matrices and kernels, without for
        tokens, norms and biases. Empty groups are left out; where nothing trains, the list is empty.

        Args:
            rates: learning rates of parts that differ from `lr`, by name: "image_tower", "dino", "fusion", "language",
                "pyramid".

        Raises:
            UserError: a rate for a part that the encoder does not have.
        """
        rates = rates or {}
        parts = [name for name, _ in self.named_children()]
        for name in rates:
            if name not in parts:
                raise UserError(f"rates name {name!r}, which is no part of this encoder: it has {', '.join(parts)}")
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {(lr, True): [], (lr, False): []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim > 1 and parameter is not self.language.tokens
                groups.setdefault((rates.get(name.partition(".")[0], lr), decays), []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": weight_decay if decays else 0.0}
            for (rate, decays), parameters in groups.items()
            if parameters
        ]

    def hub_config(self) -> dict[str, Any]:
        """The config without the names of its towers' weights, which are in the file of tensors."""
        return {"encoder": {"kind": "hybrid", "config": self.config.without_downloads().to_dict()}}

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> HybridEncoder:
        """The encoder that `save_pretrained` wrote, alone or within a depth model; on the CPU in eval mode.

        Args:
            source: a folder, or a repository of the hub ("account/name").
            revision, token, cache_dir, local_files_only: for the hub, as in `huggingface_hub`.
            changes: fields of the config that do not change the features, e.g. `train_dino_blocks=0`.

        Raises:
            UserError: nothing is there, it is damaged or of another kind, or the tensors do not fit the changes.
        """
        saved = Saved(source, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
        if saved.get(lambda config: config["encoder"]["kind"]) != "hybrid":
            raise UserError(
                f"{saved.path} holds no hybrid encoder: load it with DepthModel.from_pretrained({source!r})"
            )
        config = saved.get(lambda config: HybridEncoderConfig.from_dict(config["encoder"]["config"]))
        changed = config.without_downloads().replace(**changes)
        changed.check_same_features(config, saved.source)
        tensors = saved.tensors()
        if saved.kind == "DepthModel":
            tensors = {n.removeprefix("encoder."): value for n, value in tensors.items() if n.startswith("encoder.")}
        encoder = saved.fill(lambda _: cls(changed), tensors)
        encoder.about = saved.about()
        return encoder

    @property
    def matching_tower(self) -> ConvTower:
        """The image tower, if a cost volume can be joined to its stride-4 map.

        Raises:
            UserError: there is none, or it is a transformer.
        """
        if not isinstance(self.image_tower, ConvTower):
            raise UserError(
                "a matching encoder needs an image tower with a stride-4 map: clip='RN50-quickgelu' or a timm ResNet"
            )
        return self.image_tower


def _build_dino(config: HybridEncoderConfig, weights_dir: str | Path | None) -> DinoTower | None:
    if config.dino is None:
        return None
    options: dict[str, Any] = {"num_classes": 0, "dynamic_img_size": True}
    try:
        vit = build_timm(config.dino, config.dino_weights, "dino", weights_dir, **options)
    except TypeError as error:  # an architecture that does not take these options
        raise UserError(f"dino={config.dino!r} is no vision transformer of any image size: {error}") from error
    own = (tuple(vit.pretrained_cfg["mean"]), tuple(vit.pretrained_cfg["std"]))  # type: ignore[index]
    chosen = choose_normalization(config.normalization_of_dino, own)
    return DinoTower(vit, config.dino_blocks, config.train_dino_blocks, chosen, config.position_resize)


def create_encoder(
    source: PresetName | str | Path | HybridEncoderConfig = "paper",
    weights_dir: str | Path | None = None,
    **changes: Unpack[ConfigChanges],
) -> HybridEncoder:
    """A `HybridEncoder` by preset name or config, or with saved weights from a folder or the hub.

    Args:
        source: a preset ("paper", "released", "small", "dinov3", "tiny"), a config, a folder that `save_pretrained`
            wrote (write "./tiny" if it has a preset's name) or a hub id ("account/name").
        weights_dir: folder that is searched for the towers' published weights before they are downloaded; None: the
            one that the environment variable HYBRID_ENCODER_WEIGHTS names.
        changes: fields of `HybridEncoderConfig` to change, e.g. `clip_weights="RN50.pt", dino_weights="random"`, or
            `num_ch_enc=(48, 80, 128), strides=(4, 8, 16)` for a host's decoder.

    Raises:
        UserError: unknown preset or field, missing or unfit weights.
    """
    if isinstance(source, HybridEncoderConfig):
        return HybridEncoder(source.replace(**changes), weights_dir)
    if source not in PRESETS and looks_like_source(source):
        return HybridEncoder.from_pretrained(source, **changes)
    encoder = HybridEncoder(preset(str(source)).replace(**changes), weights_dir)
    encoder.about["preset"] = str(source) + (" with changes" if changes else "")
    return encoder
