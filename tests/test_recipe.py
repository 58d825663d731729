"""`--recipe released`: each entry against what the trainer really builds, at the paper's sizes but with tiny nets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hybrid_encoder.cli import main
from hybrid_encoder.commands.convert import convert, open_depth_model
from hybrid_encoder.commands.recipes import RECIPES, recipe_table, with_recipe
from hybrid_encoder.config import PRESETS, HybridEncoderConfig, preset
from hybrid_encoder.data.augment import color_jitter
from hybrid_encoder.data.dataset import SelfSupervisedDataset
from hybrid_encoder.data.loader import EpochSampler
from hybrid_encoder.engine.processes import Processes
from hybrid_encoder.engine.step import Stepper
from hybrid_encoder.errors import UserError
from hybrid_encoder.images import resize_image
from hybrid_encoder.model.encoder import HybridEncoder, create_encoder
from hybrid_encoder.model.predictor import predict_disparities
from hybrid_encoder.options import parse_settings
from hybrid_encoder.released.names import decoder_tensors, encoder_tensors
from hybrid_encoder.stage1.checkpoint import load_stage1, save_stage1
from hybrid_encoder.stage1.dataset import Stage1Dataset
from hybrid_encoder.stage1.model import Stage1Model, stage1_config
from hybrid_encoder.stage1.options import PretrainOptions
from hybrid_encoder.stage1.training import Stage1Task, open_loaders, open_parts
from hybrid_encoder.stage2.checkpoint import described_nets, encoder_extras
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.networks import Stage1Start, build_hybrid
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import Monodepth2Task, load_samples, loop_options
from hybrid_encoder.two_frame.options import ManydepthOptions
from hybrid_encoder.two_frame.training import ManydepthTask

from .released_files import DATA, KEYS, TINY_RELEASED, write_folder

HERE = Processes(torch.device("cpu"))
TINY: dict[str, Any] = {"recipe": "released", "preset": "tiny", "weights_init": "scratch", "num_workers": 0}
SCENE = (375, 1242)
Entries = dict[str, Any]


class Frames:
    """KITTI-like frames of smooth noise."""

    def __len__(self) -> int:
        return 16

    def name(self, index: int) -> str:
        return f"frame {index}"

    def read(self, index: int, frame_id: Any) -> np.ndarray:
        noise = np.random.default_rng([index, frame_id + 1]).integers(0, 256, (24, 78, 3), dtype=np.uint8)
        return cv2.resize(noise, SCENE[::-1], interpolation=cv2.INTER_CUBIC)

    def intrinsics(self, index: int) -> np.ndarray:
        raise AssertionError("the recipe's intrinsics are fixed")

    def stereo_sign(self, index: int) -> int:
        return -1


def recipe_entries(options: type[Any]) -> Entries:
    """The recipe of a command, fields of encoders one by one."""
    entries: Entries = {}
    for name, value in RECIPES["released"][options].items():
        if name.endswith("encoder_option"):
            entries |= {f"{name} {field}": setting for field, setting in parse_settings(name, value).items()}
        else:
            entries[name] = value
    return entries


def seen_pixels(tower: nn.Module | None) -> str:
    """What a tower does to pixels."""
    assert tower is not None
    deviation = cast(Tensor, tower.std).flatten().tolist()
    return {(1, 1, 1): "none", (0.229, 0.224, 0.225): "imagenet"}[tuple(round(value, 3) for value in deviation)]


def encoder_entries(encoder: HybridEncoder, name: str = "encoder_option") -> Entries:
    """The recipe's fields of an encoder, as its parts show them."""
    assert encoder.dino is not None
    first, second = seen_pixels(encoder.image_tower), seen_pixels(encoder.dino)
    text = encoder.language.text_features().norm().item()
    blocks = [any(p.requires_grad for p in block.parameters()) for block in cast(Any, encoder.dino.vit).blocks]
    language = {n for n, p in encoder.language.named_parameters() if p.requires_grad and n != "tokens"}
    ends = {"embedding", "position", "projection", "ln_final.weight", "ln_final.bias"}
    whole = {n for n, _ in encoder.language.named_parameters() if n != "tokens"}
    assert language in (set(), ends, whole)
    return {
        f"{name} normalization": first,
        f"{name} dino_normalization": "same" if first == second else second,
        f"{name} position_resize": "facebook" if "_pos_embed" in vars(encoder.dino.vit) else "timm",
        f"{name} decoder_style": encoder.config.decoder_style,
        f"{name} convs2_output_padding": encoder.config.convs2_output_padding,
        f"{name} text_norm": "matrix" if text == pytest.approx(1, abs=1e-4) else "prompt",
        f"{name} num_tokens": len(encoder.language.tokens),
        f"{name} token_init": "random" if abs(encoder.language.tokens.std().item() - 0.02) < 1e-3 else "words",
        f"{name} train_dino_blocks": sum(blocks) if blocks == sorted(blocks) else None,
        f"{name} train_text": {0: "none", len(ends): "ends"}.get(len(language), "all"),
    }


def group_entries(optimizer: torch.optim.Optimizer, model: nn.Module) -> Entries:
    """One group of AdamW, of all that trains."""
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.AdamW
    assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters() if p.requires_grad}
    return {"decay_on": "all" if group["weight_decay"] == 0.01 else "matrices", "learning_rate": group["lr"]}


def drop_of_rate(optimizer: torch.optim.Optimizer, scheduler: Any, epochs: int) -> int:
    """The epoch at whose beginning the rate is a tenth of what it was before, the only time that it changes."""
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    drops = [epoch for epoch in range(1, epochs) if rates[epoch] == pytest.approx(rates[epoch - 1] / 10)]
    assert len(set(rates)) == 1 + len(drops)
    return drops[0] if drops else epochs


def sample_entries(options: Any, frame_ids: tuple[Any, ...]) -> Entries:
    """Samples of the training part: size, resizing, jitter and intrinsics."""
    loader = load_samples(Frames(), frame_ids, options, "train", HERE)
    dataset = cast(SelfSupervisedDataset, loader.dataset)
    samples = [dataset[0, i] for i in range(len(dataset))]
    _, height, width = samples[0]["frames"][0].shape
    image = np.array(Image.fromarray(Frames().read(0, 0)).resize((width, height), Image.Resampling.LANCZOS))
    read = samples[0]["frames"][0].permute(1, 2, 0).numpy()
    expected = torch.tensor([[0.58 * width, 0, 0.5 * width], [0, 1.92 * height, 0.5 * height], [0, 0, 1]])
    changed = [s["jitter"] for s in samples if (s["jitter"] != torch.tensor([1.0, 1, 1, 0])).any()]
    assert 3 < len(changed) < 13, "every other sample"
    return {
        "height": height,
        "width": width,
        "batch_size": loader.batch_size,
        "resize": "lanczos" if (read == image).all() or (read == image[:, ::-1]).all() else "area",
        "jitter": "frame" if all(len(torch.unique(j[:, 0])) == len(frame_ids) for j in changed) else "sample",
        "kitti_camera": "average" if all(torch.allclose(s["K"], expected) for s in samples) else "calibration",
    }


def stage2_entries(options: Any, task: Any, nets: MonoDepth) -> Entries:
    """What both trainers of stage 2 build."""
    loop = loop_options(options, {})
    assert nets.poses is not None
    assert nets.poses.pose_encoder is not None
    found = group_entries(task.optimizer, task.model) | sample_entries(options, options.all_frame_ids)
    return found | {
        "encoder": "hybrid",
        "head": cast(Any, nets.depth).head,
        "num_epochs": loop.epochs,
        "clip_grad": loop.clip_grad,
        "scheduler_step_size": drop_of_rate(task.optimizer, task.scheduler, loop.epochs),
        "pose_model_type": nets.poses.kind,
        "pose_normalization": nets.poses.pose_encoder.normalization,
        "stage1_pixels": options.stage1_pixels,  # held by the test of stage 1's weights
    }


def test_monodepth2_builds_what_the_recipe_says() -> None:
    options = with_recipe(Monodepth2Options, TINY)
    options.check()
    task = Monodepth2Task(options, 3, cast(Any, None), HERE)
    found = stage2_entries(options, task, task.model) | encoder_entries(cast(HybridEncoder, task.model.encoder))
    assert found.pop("clip_grad") is None
    found["frames_in_one_batch"] = task.model.options.frames_in_one_batch
    assert found == recipe_entries(Monodepth2Options)


def test_manydepth_builds_what_the_recipe_says() -> None:
    options = with_recipe(ManydepthOptions, TINY)
    options.check()
    task = ManydepthTask(options, 3, cast(Any, None), HERE)
    model = task.model
    found = stage2_entries(options, task, model.teacher)
    matching = cast(Any, model.net.encoder)
    found |= encoder_entries(matching.encoder) | {
        "num_depth_bins": matching.num_depth_bins,
        "teacher_encoder": "hybrid",
    }
    teacher = encoder_entries(cast(HybridEncoder, model.teacher.encoder), "teacher_encoder_option")
    own = recipe_entries(ManydepthOptions)
    for name, value in teacher.items():  # where the teacher has no setting of its own, it has the student's
        assert value == own.get(name, own[name.removeprefix("teacher_")]), name
    found |= {name: value for name, value in teacher.items() if name in own}
    assert loop_options(options, {}).clip_parts == ("net.encoder", "net.depth")
    found["clip_over"] = "encoder_decoder"

    epoch = 0
    while not model.frozen:
        task.start_step(epoch, 3 * epoch)
        epoch += 1
    resumed = ManydepthTask(options, 3, cast(Any, None), HERE)
    resumed.load_extra_state(task.extra_state())
    resumed.optimizer.load_state_dict(task.optimizer.state_dict())
    resumed.scheduler.load_state_dict(task.scheduler.state_dict())
    fresh = is_fresh(task)
    assert fresh == is_fresh(resumed)
    found |= {"freeze_teacher_epoch": epoch - 1, "on_freeze": "fresh_adam" if fresh else "continue"}
    assert found == own


def is_fresh(task: ManydepthTask) -> bool:
    """Adam of the two-frame net alone, at the full rate, for 15 further epochs, without weight decay and memory."""
    (group,) = task.optimizer.param_groups
    own = {id(p) for p in task.model.net.parameters() if p.requires_grad}
    assert {id(p) for p in group["params"]} == own
    assert not any(p.requires_grad for p in task.model.teacher.parameters())
    found = type(task.optimizer) is torch.optim.Adam and not group["weight_decay"] and not task.optimizer.state
    return found and group["lr"] == 1e-5 and drop_of_rate(task.optimizer, task.scheduler, 15) == 15


def tusimple(folder: Path, images: int = 3) -> Path:
    """Images of TuSimple's proportions, each with a lane."""
    (folder / "clips").mkdir(parents=True)
    lines = []
    for number in range(images):
        noise = np.random.default_rng(number).integers(0, 256, (45, 80, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"clips/{number}.png"), cv2.resize(noise, (320, 180)))
        ys = list(range(60, 180, 10))
        label = {"raw_file": f"clips/{number}.png", "lanes": [[150 + y // 2 for y in ys]], "h_samples": ys}
        lines.append(json.dumps(label))
    (folder / "label_data_0313.json").write_text("\n".join(lines))
    return folder


def stage1_samples(dataset: Stage1Dataset) -> Entries:
    """Size, mirrors, jitter and points of 60 samples of stage 1's training part."""
    samples = [dataset[epoch, index] for epoch in range(20) for index in range(len(dataset))]
    _, height, width = samples[0]["image"].shape
    plain = [resize_image(dataset.source.read(i, np.random.default_rng())[0], height, width) for i in range(3)]
    mirrored = [(s["image"].permute(1, 2, 0).numpy() != plain[i % 3]).any() for i, s in enumerate(samples)]
    changed = [(s["jitter"][:3] != 1).all() for s in samples]
    points = dataset.source.read(0, np.random.default_rng())[1] * (height / 180)
    return {
        "height": height,
        "width": width,
        "mirror_probability": float(np.mean(mirrored)),
        "jitter_probability": float(np.mean(changed)),
        "point_scale": "height" if np.allclose(samples[0]["points"], points) else "axes",
    }


def test_stage_1_builds_what_the_recipe_says(tmp_path: Path) -> None:
    options = with_recipe(PretrainOptions, {**TINY, "data": (f"tusimple:{tusimple(tmp_path)}",)})
    options.check()
    train, val = open_parts(options)
    loader, val_loader = open_loaders(train, val, options, HERE)
    sampler = cast(EpochSampler, loader.sampler)
    draws = [index for _, index in sampler]
    assert len(draws) == (3 + 23158) // 6
    assert set(draws) == {0, 1, 2}, "at random"
    task = Stage1Task(options, len(loader), val_loader, HERE)
    (group,) = task.optimizer.param_groups
    assert task.scheduler.total_steps % len(loader) == 0
    assert group["initial_lr"] == pytest.approx(3.57e-4 / 25)
    assert group["lr"] == pytest.approx(3.57e-4 / 25)
    assert group["min_lr"] == pytest.approx(3.57e-4 / 2500)
    found = stage1_samples(cast(Stage1Dataset, loader.dataset)) | loss_entries(task.model)
    found |= {
        "epochs": task.scheduler.total_steps // len(loader),
        "sampling": "released",
        "train_on": "all" if len(train) == 3 > len(val) else "train",
        "batch_size": loader.batch_size,
        "lr": group["max_lr"],
        "weight_decay": group["weight_decay"],
        "clip_grad": options.clip_grad,
    }
    encoder = encoder_entries(task.model.encoder)
    assert encoder["encoder_option train_text"] == "none"
    own = recipe_entries(PretrainOptions)
    assert found | {name: value for name, value in encoder.items() if name in own} == own


def loss_entries(model: Stage1Model) -> Entries:
    """The losses of two images with five lanes whose logits are known."""
    features = torch.nn.functional.normalize(torch.rand(5, 7, 9, generator=torch.Generator().manual_seed(0)), dim=-1)
    logits = 0.1 * torch.randn(5, 7, 7, generator=torch.Generator().manual_seed(1))
    text = float(model._text().norm())
    model.logits = lambda _: (features, logits)  # type: ignore[method-assign]
    batch = type("Batch", (), {"images": torch.zeros(2, 3, 8, 8)})
    scalars = model(cast(Any, batch))
    own = logits.diagonal(dim1=1, dim2=2)[:, None]
    excess = (logits - own).clamp_min(0).triu(1).sum()
    contrast = float(scalars["loss"] - scalars["ranking"])
    return {
        "ranking_mean": "images" if scalars["ranking"] == pytest.approx(excess / 2) else "sequences",
        "margin": 0.0,  # the sum is the one without a margin
        "word_norm": "matrix" if text == pytest.approx(1) else "prompt",
        "contrastive_weight": pytest.approx(contrast / float(scalars["contrastive"])),
    }


def theirs_by_our_names(names: set[str], encoder: HybridEncoder) -> set[str]:
    """The authors' encoder tensors under our names; their shapes alone matter."""
    with torch.device("meta"):
        tensors = {name: torch.empty(KEYS["encoder.pth"][name][0]) for name in names}
    return set(encoder_tensors(tensors, encoder, "x", ("depth_head.*",)))


def test_what_trains_in_the_authors_steps_trains_under_the_recipe() -> None:
    """At the paper's size. requires_grad_*.json lists these tensors, and 18 that nothing reads and we do not build."""
    theirs = set(json.loads((DATA / "released_step_norms.json").read_text()))
    parts = {part: {n.removeprefix(part) for n in theirs if n.startswith(part)} for part in ("encoder.", "depth.")}
    options = with_recipe(Monodepth2Options, {"recipe": "released", "encoder_option": ("num_tokens=16",)})
    with torch.device("meta"):
        model = MonoDepth(options, options.config().without_downloads(), "random")
        first = HybridEncoder(stage1_config(with_recipe(PretrainOptions, {"recipe": "released"}).config()
            .replace(num_tokens=16).without_downloads()).replace(train_dino_blocks=0))  # fmt: skip
    trained = {
        name: {n for n, p in net.named_parameters() if p.requires_grad}
        for name, net in (*model.files().items(), ("stage1", first))
    }
    assert trained["encoder"] == theirs_by_our_names(parts["encoder."], cast(HybridEncoder, model.encoder))
    assert trained["depth"] == set(decoder_tensors({n: torch.empty(0) for n in parts["depth."]}))
    for pose in ("pose_encoder", "pose"):
        assert trained[pose] == {n.removeprefix(f"{pose}.") for n in theirs if n.startswith(f"{pose}.")}
    stage1 = {n.removeprefix("model.") for n in json.loads((DATA / "released_stage1_norms.json").read_text())}
    assert trained["stage1"] == theirs_by_our_names(stage1, first) - {"language.tokens"}


def test_the_recipe_is_printed_and_what_is_given_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs: list[Monodepth2Options] = []
    monkeypatch.setattr("hybrid_encoder.commands.train.train_monodepth2", lambda options, _: runs.append(options))
    given = ["--height", "64", "--encoder_option", "num_tokens=7", "--encoder_lr", "1e-5", "--device", "cpu"]
    assert main(["train", "monodepth2", "--recipe", "released", *given]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["option", "ours", "released"] in rows
    assert ["height", "192", "224", "this", "run:", "64"] in rows
    assert ["head", "sigmoid", "relu"] in rows
    assert ["encoder_option", "num_tokens", "256", "256", "this", "run:", "7"] in rows
    assert ["encoder_option", "train_text", "none", "ends"] in rows
    (run,) = runs
    assert (run.height, run.width, run.resize, run.encoder_lr) == (64, 672, "lanczos", 1e-5)
    assert (run.config().num_tokens, run.config().train_text) == (7, "ends")


@pytest.mark.parametrize("options", RECIPES["released"])
def test_the_page_has_the_table(options: type[Any]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "METHOD.md").read_text(encoding="utf-8")
    given = {"recipe": "released", **({"data": ("x",)} if options is PretrainOptions else {})}
    table = recipe_table(with_recipe(options, given)).splitlines()[1:]
    assert len(table) == len(recipe_entries(options))
    for line in table:
        *name, ours, released = line.split()
        assert f"| {' '.join(name)} | {ours} | {released} |" in page


def test_without_a_recipe_nothing_is_set() -> None:
    assert with_recipe(Monodepth2Options, {}) == Monodepth2Options()
    given = {"encoder_option": ("fusion=convs2_interp",), "height": 64}
    assert with_recipe(Monodepth2Options, given) == Monodepth2Options(**cast(Any, given))


def test_frames_by_themselves_are_jittered_as_they_would_be_alone() -> None:
    images = torch.rand(2, 3, 3, 8, 8)
    jitter = torch.tensor([[1.1, 0.9, 1.2, 0.05], [1, 1, 1, 0], [0.8, 1, 1.1, -0.1]]).expand(2, 3, 4)
    found = color_jitter(images, jitter)
    for i in range(3):
        assert torch.equal(found[:, i], color_jitter(images[:, i : i + 1], jitter[:, i])[:, 0])


def test_draws_differ_within_an_epoch_and_are_shared_by_processes() -> None:
    whole = EpochSampler(4, True, seed=3, draws=10)
    whole.set_epoch(1)
    keys = list(whole)
    assert len(set(keys)) == len(keys) == 10, "an image drawn twice has two keys"
    assert {index for _, index in keys} <= set(range(4))
    halves = [EpochSampler(4, True, 3, rank, 2, draws=10) for rank in (0, 1)]
    for half in halves:
        half.set_epoch(1)
    assert [key for pair in zip(*halves, strict=True) for key in pair] == keys
    whole.set_epoch(1, start=6)
    assert list(whole) == keys[6:]


def test_gradients_are_cut_apart() -> None:
    net = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("encoder", "depth", "teacher")})
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for factor, part in zip((100.0, 1.0, 50.0), net.values(), strict=True):
        for parameter in part.parameters():
            parameter.grad = torch.full_like(parameter, factor)
    whole = Stepper(net, net, HERE, "float32", 10.0, ("encoder", "depth"))._cut_gradients(optimizer)
    lengths = [nn.utils.get_total_norm([p.grad for p in part.parameters()]).item() for part in net.values()]
    assert lengths == pytest.approx([10, 12**0.5, 50 * 12**0.5], rel=1e-5)
    assert whole.item() == pytest.approx((12 * (100**2 + 1 + 50**2)) ** 0.5)


def test_stage_1_that_saw_other_pixels_is_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    config = preset("tiny").replace(pyramid=False, normalization="imagenet")
    save_stage1(tmp_path / "stage1.pth", HybridEncoder(config), config, {})
    encoder = create_encoder("tiny", normalization="none", pyramid=False)
    with pytest.raises(UserError, match="trained with normalization='imagenet', not 'none'"):
        load_stage1(encoder, tmp_path / "stage1.pth")
    load_stage1(encoder, tmp_path / "stage1.pth", any_pixels=True)
    assert (seen_pixels(encoder.image_tower), seen_pixels(encoder.dino)) == ("none", "none")
    options = with_recipe(Monodepth2Options, {**TINY, "stage1": tmp_path / "stage1.pth"})
    with pytest.raises(UserError, match="trained with position_resize='timm'"):
        build_hybrid(options.config(), Stage1Start.of(options))
    config = options.config().replace(position_resize="timm")
    assert seen_pixels(build_hybrid(config, Stage1Start.of(options)).image_tower) == "none"
    with pytest.raises(UserError, match="trained with normalization='imagenet'"):
        build_hybrid(config, Stage1Start.of(dataclasses.replace(options, stage1_pixels="same")))


def test_the_ends_of_the_text_tower_get_gradients_and_its_cache_sees_them_move() -> None:
    language = create_encoder("tiny", train_text="ends", num_tokens=3).language
    before = language.eval().text_features().detach().clone()
    language.train().text_features().sum().backward()
    assert {n for n, p in language.named_parameters() if p.grad is not None} == {
        "tokens", "embedding", "position", "projection", "ln_final.weight", "ln_final.bias"
    }  # fmt: skip
    with torch.no_grad():
        language.eval()
        language.projection.data[0] += 1
        assert not torch.allclose(language.text_features(), before)
    assert not any(
        p.requires_grad for p in create_encoder("tiny", train_text="all", alignment="none").language.parameters()
    )


def test_weights_see_images_resized_as_they_learnt_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "released", TINY_RELEASED)
    folder = write_folder(tmp_path / "released")
    model = open_depth_model(folder)
    assert model.resize == "lanczos"
    convert(folder, tmp_path / "hub")
    convert(folder, tmp_path / "folder", layout="monodepth2")
    image = Frames().read(0, 0)
    resized = np.array(Image.fromarray(image).resize((96, 64), Image.Resampling.LANCZOS))
    expected = model.disparity(torch.from_numpy(resized).permute(2, 0, 1)[None].float() / 255)
    for found in (model, open_depth_model(tmp_path / "hub"), open_depth_model(tmp_path / "folder")):
        assert found.resize == "lanczos"
        assert np.allclose(predict_disparities(found, [image]), expected[:, 0].numpy(), rtol=1e-5)
    model.resize = "area"
    assert not np.allclose(predict_disparities(model, [image]), expected[:, 0].numpy(), rtol=1e-3)


def test_files_say_how_images_were_resized() -> None:
    nets = dataclasses.replace(described_nets({}, "x"), config=HybridEncoderConfig())
    assert nets.resize == "lanczos", "the originals'"
    assert described_nets(encoder_extras(nets, 64, 96), "x").resize == "lanczos"
    ours = dataclasses.replace(nets, resize="area")
    assert described_nets(encoder_extras(ours, 64, 96), "x").resize == "area"
    older = json.loads(encoder_extras(ours, 64, 96)["decoder_config"])
    del older["resize"]
    assert described_nets({"decoder_config": json.dumps(older)}, "x").resize == "area"
    with pytest.raises(UserError, match="resize='cubic'"):
        described_nets({"decoder_config": json.dumps({**older, "resize": "cubic"})}, "x")
