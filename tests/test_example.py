"""README's "Your own trainer": the example runs, learns, and needs as few lines as it says."""

import importlib.util
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_trainer.py"


def test_the_example_host_learns() -> None:
    spec = importlib.util.spec_from_file_location("own_trainer", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.main(["--steps", "12"])
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def test_the_host_changes_in_fewer_than_twenty_lines() -> None:
    assert 0 < EXAMPLE.read_text().count("# HYBRID") < 20
