"""One GPU: inference and stage 2 with hybrid encoders beside ResNets, their share of the chip's matrix rate, and where
the time goes.

    python benchmarks/gpu.py [--parts inference steps fill profile] [--nets paper small resnet18 resnet50]

Random weights; frames in memory; the trainers' own nets and step. Convolutions and matrix products are counted by
PyTorch, and the rate they are compared with is that of a large product of square bfloat16 matrices on the same chip.
`fill` doubles the batch of a training step until the memory does not suffice. Prints the tables of
benchmarks/README.md, each row as soon as it is found. `--device cpu` with small sizes tries the script itself;
`make gpu` runs all of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hybrid_encoder.commands.measuring import frames_in_memory, machine, median_seconds, training_step
from hybrid_encoder.engine.inference import inference, prepare
from hybrid_encoder.engine.processes import Processes, choose_device
from hybrid_encoder.options import Precision
from hybrid_encoder.stage2.model import MonoDepth
from hybrid_encoder.stage2.options import Monodepth2Options
from hybrid_encoder.stage2.training import build_optimizer

MODES = {"float32": ("float32", False), "bf16": ("bf16", False), "bf16, compiled": ("bf16", True)}
KINDS = {
    "convolutions": ("conv",),
    "attention": ("attention",),
    "matrix products": ("mm", "linear", "matmul", "dot"),
    "norms": ("norm",),
    "optimiser": ("_fused_adam", "_foreach"),
    "sampling and pooling": ("sampl", "pool", "pad"),
    "copies and casts": ("copy", "cat", "clone", "fill", "zero"),
}
"""Kinds of operators by what their names contain; the first that fits. All others work element by element."""


def build(net: str, height: int, width: int) -> MonoDepth:
    """The depth and pose nets of the Monodepth2 trainer for `resnetN`, or for the hybrid encoder of a preset."""
    settings: dict[str, Any] = {"encoder": "hybrid", "preset": net}
    if net.startswith("resnet"):
        settings = {"encoder": "resnet", "num_layers": int(net.removeprefix("resnet"))}
    options = Monodepth2Options(weights_init="scratch", height=height, width=width, **settings)
    torch.manual_seed(0)
    return MonoDepth(options, options.config(), "random")


def name(net: str) -> str:
    """As a table's row names it."""
    return f"ResNet-{net.removeprefix('resnet')}" if net.startswith("resnet") else f"hybrid, `{net}`"


def flops(call: Callable[[], object]) -> float:
    """Floating-point operations of a call, those of convolutions, matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


def matrix_rate(size: int, dtype: torch.dtype, device: torch.device, rounds: int) -> float:
    """Operations a second in the product of two square matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    products = 10

    def multiply() -> None:
        for _ in range(products):
            a @ b

    return products * 2 * size**3 / median_seconds(multiply, rounds, device)


def seconds_of(call: Callable[[], object], precision: Precision, rounds: int, device: torch.device) -> float:
    """Median seconds of an inference, once what is compiled or chosen at the first calls is."""

    def run() -> None:
        with inference(device, precision):
            call()

    for _ in range(3):
        run()
    return median_seconds(run, rounds, device)


def measure_inference(net: str, size: int, given: argparse.Namespace, device: torch.device, rate: float) -> None:
    """Prints the rows of one net and batch size."""
    model = prepare(build(net, given.height, given.width), device)
    image = torch.rand(size, 3, given.height, given.width, device=device).to(memory_format=torch.channels_last)

    def see() -> Any:
        return model.encoder.forward_features(image)

    def see_depth() -> Tensor:
        return model.disparity(image)

    with inference(device):
        see()  # text is computed once per model, and counts as no image's work
    with torch.no_grad():
        work, whole_work = flops(see), flops(see_depth)
    for mode, (precision, compiled) in MODES.items():
        if precision not in given.precisions:
            continue
        if compiled and (net not in given.compiled or size != max(given.batches)):
            continue
        calls: list[Callable[[], Any]] = [see, see_depth]
        if compiled:
            torch._dynamo.reset()
            calls = [torch.compile(call, dynamic=False) for call in calls]
        alone, whole = (seconds_of(call, precision, given.rounds, device) for call in calls)
        print(f"| {name(net)} | {size} | {mode} | {size / alone:.1f} | {size / whole:.1f} ", end="")
        print(f"| {whole_work / size / 1e9:.1f} | {work / alone / 1e12:.2f} | {work / alone / rate:.1%} |", flush=True)


def step_of(
    net: str, height: int, width: int, batch: int, precision: Precision, device: torch.device
) -> Callable[[], float]:
    """A step of stage 2 on frames in memory."""
    model = build(net, height, width).train()
    processes = Processes(device)
    processes.place(model)
    optimizer = build_optimizer(model, model.options)  # type: ignore[arg-type]
    return training_step(model, optimizer, [frames_in_memory(batch, height, width, device)], processes, precision)


@dataclass(frozen=True)
class StepSize:
    """What a training step works on."""

    height: int
    width: int
    batch: int
    precision: Precision

    def __str__(self) -> str:
        return f"{self.height}x{self.width} | {self.batch} | {self.precision}"


def measure_step(net: str, size: StepSize, rounds: int, device: torch.device, rate: float) -> None:
    """Prints the row of one net and size."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    step = step_of(net, size.height, size.width, size.batch, size.precision, device)
    work = flops(step)
    seconds = median_seconds(step, rounds, device)
    peak = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f}" if on_gpu else "-"
    row = f"| {name(net)} | {size} | {seconds:.3f} | {size.batch / seconds:.1f} | {peak} "
    print(f"{row}| {work / seconds / 1e12:.2f} | {work / seconds / rate:.1%} |", flush=True)


def measure_steps(given: argparse.Namespace, device: torch.device, rate: float) -> None:
    """Prints the table of stage 2."""
    print_step_header("Stage 2")
    for net in given.nets:
        for size in given.sizes:
            for precision in given.precisions:
                height, width = map(int, size.split("x"))
                measure_step(net, StepSize(height, width, given.batch, precision), given.rounds, device, rate)


def fill(given: argparse.Namespace, device: torch.device, rate: float) -> None:
    """Prints the table of ever larger batches of the first net."""
    height, width = map(int, given.sizes[0].split("x"))
    print_step_header("Batches that fill the memory")
    batch = given.batch
    while batch <= given.largest_batch:
        try:
            measure_step(
                given.nets[0], StepSize(height, width, batch, given.precisions[-1]), min(given.rounds, 3), device, rate
            )
        except torch.OutOfMemoryError:
            print(f"\na batch of {batch} does not fit", flush=True)
            return
        batch *= 2


def print_step_header(title: str) -> None:
    print(f"\n{title}; the share is that of the measured bf16 matrix rate\n")
    print("| net | size | batch | mode | step (s) | samples/s | peak memory (GiB) | TFLOP/s | share |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)


def kind(operator: str) -> str:
    """Which of `KINDS` an operator such as "aten::mm" belongs to."""
    found = (kind for kind, parts in KINDS.items() if any(part in operator for part in parts))
    return next(found, "element by element")


def print_profile(title: str, call: Callable[[], object], given: argparse.Namespace, device: torch.device) -> None:
    """Prints which kinds of operators the device's time went to, and how much of the clock's time it was busy."""
    call()
    seconds = median_seconds(call, given.rounds, device)
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        call()
        if on_gpu:
            torch.cuda.synchronize()
    times = dict.fromkeys([*KINDS, "element by element"], 0.0)
    for event in found.key_averages():
        # An operator's own device time is that of the kernels it started; kernels are listed beside operators, too.
        if event.device_type == DeviceType.CPU and event.key.startswith("aten::"):
            times[kind(event.key)] += (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6
    busy = sum(times.values())
    print(f"\n{title}: {1000 * seconds:.1f} ms; operators take {1000 * busy:.1f} ms of the device\n")
    print("| kind | ms | share |\n|---|---|---|")
    for label, value in sorted(times.items(), key=lambda item: -item[1]):
        print(f"| {label} | {1000 * value:.2f} | {value / busy:.1%} |")
    print(flush=True)


def profile_net(net: str, given: argparse.Namespace, device: torch.device) -> None:
    """The encoder's inference with the largest batch, and a step of stage 2, both in the last precision."""
    height, width, size, precision = given.height, given.width, max(given.batches), given.precisions[-1]
    encoder = prepare(build(net, height, width).encoder, device)
    image = torch.rand(size, 3, height, width, device=device).to(memory_format=torch.channels_last)

    def see() -> None:
        with inference(device, precision):
            encoder.forward_features(image)

    print_profile(f"{name(net)}, encoder, {height}x{width}, batch {size}, {precision}", see, given, device)
    step = step_of(net, height, width, given.batch, precision, device)
    title = f"{name(net)}, step of stage 2, {height}x{width}, batch {given.batch}, {precision}"
    print_profile(title, step, given, device)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts, nets = ("inference", "steps", "fill", "profile"), ("paper", "small", "resnet18", "resnet50")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--nets", nargs="+", default=nets, help="fill and profile take the first")
    parser.add_argument("--compiled", nargs="*", default=nets, help="nets compiled, too, at the largest batch")
    precisions = ("float32", "bf16")
    parser.add_argument(
        "--precisions", nargs="+", choices=precisions, default=precisions, help="last: of fill, profile"
    )
    parser.add_argument("--height", type=int, default=224, help="of inference and profile")
    parser.add_argument("--width", type=int, default=672, help="of inference and profile")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="of inference")
    parser.add_argument("--batch", type=int, default=12, help="of stage 2")
    parser.add_argument("--sizes", nargs="+", default=["192x640", "224x672"], help="of stage 2; fill takes the first")
    parser.add_argument("--largest_batch", type=int, default=1024, help="where filling ends at the latest")
    parser.add_argument("--matrix", type=int, default=8192, help="rows of the matrices of the measured rate")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    run(parser.parse_args(arguments))


def run(given: argparse.Namespace) -> None:
    """Prints the parts asked for."""
    device = choose_device(given.device)
    print(f"{machine(device)}; medians of {given.rounds}\n")
    rates = {dtype: matrix_rate(given.matrix, dtype, device, 3) for dtype in (torch.float32, torch.bfloat16)}
    for dtype, rate in rates.items():
        print(f"{str(dtype).removeprefix('torch.')} matrices of {given.matrix} rows: {rate / 1e12:.2f} TFLOP/s")
    if "inference" in given.parts:
        print(f"\nInference, {given.height}x{given.width}; the share is that of the measured bf16 matrix rate\n")
        print("| net | batch | mode | encoder, images/s | with decoder, images/s | GFLOP an image ", end="")
        print("| encoder, TFLOP/s | share |\n|---|---|---|---|---|---|---|---|")
        for net in given.nets:
            for size in given.batches:
                measure_inference(net, size, given, device, rates[torch.bfloat16])
    if "steps" in given.parts:
        measure_steps(given, device, rates[torch.bfloat16])
    if "fill" in given.parts:
        fill(given, device, rates[torch.bfloat16])
    if "profile" in given.parts:
        profile_net(given.nets[0], given, device)


if __name__ == "__main__":
    main()
