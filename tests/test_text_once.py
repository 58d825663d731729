"""The text of a training step is computed once for all calls, and nothing but the time differs: every test compares
with text that is computed anew at each call."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from hybrid_encoder import create_encoder
from hybrid_encoder.model.language import Language, align

Text = Callable[[], Tensor]


def make_language() -> Language:
    """In double precision, where sums in another order are equal."""
    torch.manual_seed(0)
    return create_encoder("tiny").double().train().language


WEIGHTS = torch.rand(12, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


def loss(language: Language, text: Tensor, seed: int = 0) -> Tensor:
    """Another one for each seed."""
    return (text * WEIGHTS[seed, : text.shape[0], : text.shape[1]]).sum().square()


def runs(language: Language) -> list[Tensor]:
    """Grows by an entry whenever the text tower is run: what it was read out as."""
    found: list[Tensor] = []
    language.ln_final.register_forward_hook(lambda _module, _given, answer: found.append(answer.detach()))
    return found


def eight_uses(language: Language, text: Text) -> list[Tensor]:
    total = sum((loss(language, text(), seed) for seed in range(8)), torch.tensor(0.0, dtype=torch.float64))
    total.backward()
    return [total]


def two_losses(language: Language, text: Text) -> list[Tensor]:
    first, second = loss(language, text(), 0), loss(language, text(), 1)
    first.backward()
    second.backward()
    return [first, second]


def a_loss_with_two_backward_passes(language: Language, text: Text) -> list[Tensor]:
    found = loss(language, text())
    found.backward(retain_graph=True)
    found.backward()
    return [found]


def three_losses_of_shared_texts(language: Language, text: Text) -> list[Tensor]:
    one, two = text(), text()
    found = [loss(language, one, 0), loss(language, one + two, 1), loss(language, two, 2)]
    for each in found:
        each.backward(retain_graph=True)
    found[1].backward()
    return found


def accumulation(language: Language, text: Text) -> list[Tensor]:
    found = []
    for seed in range(3):
        found.append(loss(language, text(), seed) + loss(language, text(), seed + 9))
        found[-1].backward()
    return found


def a_step_between_backward_passes(language: Language, text: Text) -> list[Tensor]:
    """The second loss is of tokens from before the step, which a fused optimiser does not announce."""
    optimizer = torch.optim.AdamW([language.tokens], lr=0.1, fused=True)
    first, second = loss(language, text(), 0), loss(language, text(), 1)
    first.backward()
    optimizer.step()
    third = loss(language, text(), 2)
    second.backward()
    third.backward()
    return [first, second, third]


def a_step_by_hand_before_any_backward_pass(language: Language, text: Text) -> list[Tensor]:
    optimizer = torch.optim.AdamW([language.tokens], lr=0.1, fused=True)
    first = loss(language, text(), 0)
    language.tokens.grad = torch.ones_like(language.tokens)
    optimizer.step()
    optimizer.zero_grad()
    second = loss(language, text(), 1)
    (first + second).backward()
    return [first, second]


def writes_between_uses(language: Language, text: Text) -> list[Tensor]:
    found = [text()]
    with torch.no_grad():
        language.tokens.add_(0.1)
    found.append(text())
    language.tokens.data.add_(0.1)
    found.append(text())
    language.load_state_dict({name: value + 0.01 for name, value in language.state_dict().items()}, assign=False)
    found.append(text())
    return found  # a graph from before the last write to the tower cannot be run, shared or not


def moved_between_uses(language: Language, text: Text) -> list[Tensor]:
    first = text()
    language.float()
    second = text()
    language.double()
    return [first, second, text()]


def tower_unfrozen_between_uses(language: Language, text: Text) -> list[Tensor]:
    first = loss(language, text(), 0)
    language.ln_final.requires_grad_(True)
    language.embedding.requires_grad_(True)
    second = loss(language, text(), 1)
    (first + second).backward()
    optimizer = torch.optim.SGD([language.embedding, *language.ln_final.parameters()], lr=1e-3)
    optimizer.step()
    language.requires_grad_(False)
    language.tokens.requires_grad_(True)
    return [first, second, loss(language, text(), 3)]


def only_the_tower_trains(language: Language, text: Text) -> list[Tensor]:
    language.tokens.requires_grad_(False)
    language.projection.requires_grad_(True)
    return two_losses(language, text)


def without_gradients_in_between(language: Language, text: Text) -> list[Tensor]:
    first = loss(language, text(), 0)
    with torch.no_grad():
        seen = text()
    with torch.inference_mode():
        inside = text().clone()
    second = loss(language, text(), 1)
    first.backward()
    with torch.no_grad():
        after = text()
    second.backward()
    assert not seen.requires_grad
    assert not after.requires_grad
    return [first, second, seen, inside.clone(), after]


def modes_switched(language: Language, text: Text) -> list[Tensor]:
    first = loss(language, text(), 0)
    language.eval()
    second = loss(language, text(), 1)
    language.train()
    (first + second + loss(language, text(), 2)).backward()
    return [first, second]


def gradient_penalty(language: Language, text: Text) -> list[Tensor]:
    """A second derivative, with respect to the tokens and to what is after the text."""
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        value = loss(language, scale * text()) + loss(language, text() ** 2, 1)
        (slope,) = torch.autograd.grad(value, [language.tokens], create_graph=True)
        penalty = slope.square().sum()
        (penalty + value).backward()
    assert scale.grad is not None
    return [penalty, scale.grad]


def gradients_of_other_inputs(language: Language, text: Text) -> list[Tensor]:
    image = torch.ones((), dtype=torch.float64, requires_grad=True)
    first, second = loss(language, text() * image, 0), loss(language, text() * image, 1)
    (alone,) = torch.autograd.grad(first, [image])
    third = loss(language, text(), 2)
    (tokens,) = torch.autograd.grad(third, [language.tokens])
    second.backward()
    return [alone, third, tokens]


def hooks(language: Language, text: Text) -> list[Tensor]:
    """On the tokens, which run once a backward pass, and on the texts, which run at each of them."""
    seen: list[Tensor] = []
    handle = language.tokens.register_hook(lambda gradient: 0.5 * gradient)
    for seed in range(2):
        one = text()
        one.register_hook(lambda gradient: seen.append(gradient) or 3 * gradient)
        loss(language, one, seed).backward()
    one, two = text(), text()
    one.register_hook(lambda gradient: seen.append(gradient) or 3 * gradient)
    (loss(language, one, 0) + loss(language, two, 1)).backward()
    handle.remove()
    return seen


def a_text_that_is_written_to(language: Language, text: Text) -> list[Tensor]:
    first = text()
    first.mul_(2)
    second = text()
    (loss(language, first, 0) + loss(language, second, 1)).backward()
    return [first, second]


def checkpointed(language: Language, text: Text, reentrant: bool = False) -> list[Tensor]:
    image, found = torch.ones((), dtype=torch.float64, requires_grad=True), []
    for seed in range(3):
        found.append(loss(language, text(), seed))

        def part(given: Tensor, seed: int = seed) -> Tensor:
            return loss(language, (text() * given).tanh().exp() + text(), seed)

        found.append(checkpoint(part, image, use_reentrant=reentrant))
    found[0].backward()
    (found[1] + found[3]).backward()
    sum(found[4:], found[2]).backward()
    assert image.grad is not None
    return [*found, image.grad]


def checkpointed_reentrant(language: Language, text: Text) -> list[Tensor]:
    return checkpointed(language, text, reentrant=True)


def saved_on_the_cpu(language: Language, text: Text) -> list[Tensor]:
    first = loss(language, text(), 0)
    with torch.autograd.graph.save_on_cpu():
        second = loss(language, text(), 1)
    (first + second).backward()
    return [first, second]


def with_and_without_autocast(language: Language, text: Text) -> list[Tensor]:
    language.float()
    with torch.autocast("cpu", torch.bfloat16):
        first = loss(language, text(), 0)
    second = loss(language, text(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        third = loss(language, text(), 2)
    first.backward()
    (second + third).backward()
    return [first, second, third]


def transformed(language: Language, text: Text) -> list[Tensor]:
    """torch.func looks into what it transforms."""
    before = loss(language, text(), 0)
    slope = torch.func.grad(lambda scale: loss(language, scale * text(), 1))(torch.tensor(2.0, dtype=torch.float64))
    many = torch.func.vmap(lambda scale: loss(language, scale * text(), 1))(torch.arange(3.0, dtype=torch.float64))
    before.backward()
    return [before, slope, many]


def other_tokens(language: Language, text: Text) -> list[Tensor]:
    """Made by another net, at every call."""
    made = nn.Parameter(torch.ones(language.tokens.shape[1]))
    tokens = language.tokens
    found = []
    for seed in range(2):
        del language.tokens
        language.tokens = tokens.detach() * made
        found.append(loss(language, text(), seed))
    sum(found[1:], found[0]).backward()
    language.tokens = tokens
    assert made.grad is not None
    return [*found, made.grad]


SCENES = {
    scene.__name__: scene
    for scene in (
        eight_uses,
        two_losses,
        a_loss_with_two_backward_passes,
        three_losses_of_shared_texts,
        accumulation,
        a_step_between_backward_passes,
        a_step_by_hand_before_any_backward_pass,
        writes_between_uses,
        moved_between_uses,
        tower_unfrozen_between_uses,
        only_the_tower_trains,
        without_gradients_in_between,
        modes_switched,
        gradient_penalty,
        gradients_of_other_inputs,
        hooks,
        a_text_that_is_written_to,
        checkpointed,
        checkpointed_reentrant,
        saved_on_the_cpu,
        with_and_without_autocast,
        transformed,
        other_tokens,
    )
}


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == theirs.dtype
    precision = 1e-12 if ours.dtype == torch.float64 else 1e-6
    scale = float(theirs.detach().abs().max())
    assert float((ours - theirs).detach().abs().max()) <= precision * max(scale, 1.0)


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_shared_text_is_exact(scene: Callable[[Language, Text], list[Tensor]]) -> None:
    found = []
    for shared in (False, True):
        language = make_language()
        found.append((scene(language, language.text_features if shared else partial(language, "tokens")), language))
    (expected, plain), (values, language) = found
    assert len(values) == len(expected)
    for ours, theirs in zip(values, expected, strict=True):
        close(ours, theirs)
    for (name, ours_), theirs_ in zip(language.named_parameters(), plain.parameters(), strict=True):
        close(ours_, theirs_)
        assert (ours_.grad is None) == (theirs_.grad is None), name
        if ours_.grad is not None and theirs_.grad is not None:
            close(ours_.grad, theirs_.grad)
    fresh = language("tokens")
    close(language.text_features(), fresh)


@pytest.mark.parametrize(
    ("scene", "count"), [(eight_uses, 1), (two_losses, 1), (accumulation, 3), (without_gradients_in_between, 1)]
)
def test_the_tower_runs_once_a_step(scene: Callable[[Language, Text], list[Tensor]], count: int) -> None:
    language = make_language()
    ran = runs(language)
    scene(language, language.text_features)
    assert len(ran) == count


def test_words_share_a_tower_that_trains() -> None:
    language = make_language()
    language.ln_final.requires_grad_(True)
    ran = runs(language)
    total = language.word_features().square()[:, 0].sum() + language.word_features()[:, 1].sum()
    total.backward()
    assert len(ran) == 1
    expected = language("words").square()[:, 0].sum() + language("words")[:, 1].sum()
    close(language.ln_final.weight.grad, torch.autograd.grad(expected, [language.ln_final.weight])[0])
    assert language.tokens.grad is None


def test_a_graph_is_freed_by_its_backward_pass() -> None:
    """As any graph, while the outputs are still there; a shared one with the last of them."""
    language = make_language()
    inside: list[weakref.ref[Any]] = []

    class Seen(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            inside.append(weakref.ref(ctx))
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

    language.ln_final.register_forward_hook(lambda _module, _given, answer: Seen.apply(answer))
    kept = loss(language, language.text_features())
    assert inside[0]() is not None
    kept.backward()
    assert inside[0]() is None
    with pytest.raises(RuntimeError, match="second time"):
        kept.backward()
    first, second = loss(language, language.text_features(), 0), loss(language, language.text_features(), 1)
    first.backward()
    assert inside[1]() is not None
    second.backward()
    del first, second
    language.text_features()
    assert len(inside) == 3
    assert inside[1]() is None


def test_models_are_copied_in_the_middle_of_a_step() -> None:
    language = make_language()
    first = loss(language, language.text_features())
    for twin in (copy.deepcopy(language), pickle.loads(pickle.dumps(language))):
        close(twin.text_features(), language("tokens"))
        loss(twin, twin.text_features()).backward()
        assert twin.tokens.grad is not None
    assert language.tokens.grad is None
    first.backward()
    close(language.tokens.grad, twin.tokens.grad)


class _TwoViews(nn.Module):
    """Aligns two images with the text, which it asks for twice, as host trainers that call an encoder twice do."""

    def __init__(self) -> None:
        super().__init__()
        self.language = make_language().float()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, level: Tensor) -> Tensor:
        first, second = (align(self.scale * one, self.language.text_features()) for one in (level, level.flip(-1)))
        return (first * first.flip(1)).mean() + second[:, :1].mean()


def gradients(model: nn.Module, call: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Of a step of two batches, the second of which is two calls."""
    levels = torch.rand(3, 1, 64, 2, 3, generator=torch.Generator().manual_seed(0))
    call(levels[0]).backward()
    (call(levels[1]) + call(levels[2])).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_models_that_ask_twice_learn_alike_compiled_and_in_several_processes() -> None:
    plain = _TwoViews()
    plain.language.text_features = partial(plain.language, "tokens")  # type: ignore[method-assign]
    expected = gradients(plain, plain)
    assert set(expected) == {"scale", "language.tokens"}
    shared = _TwoViews()
    ran = runs(shared.language)
    found = [gradients(shared, shared)]
    assert len(ran) == 2
    torch._dynamo.reset()
    compiled = _TwoViews()
    compiled(torch.rand(1, 64, 2, 3))  # leaves text that a compiled call must not take for its own
    found.append(gradients(compiled, torch.compile(compiled, backend="eager", fullgraph=True)))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = _TwoViews()
        found.append(gradients(wrapped, DistributedDataParallel(wrapped)))
    finally:
        dist.destroy_process_group()
    for each in found:
        assert each.keys() == expected.keys()
        for name, gradient in each.items():
            assert (gradient - expected[name]).abs().max() < 1e-5 * expected[name].abs().max(), name
