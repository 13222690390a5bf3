"""The seeds of the fuzzer, and whatever broke a target once, replayed without it."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

SEEDS = Path(__file__).parent / "seeds"


@pytest.mark.parametrize("seed", sorted(SEEDS.glob("*/*")), ids=lambda seed: f"{seed.parent.name}-{seed.name}")
async def test_seed(seed) -> None:
    work = TARGETS[seed.parent.name](seed.read_bytes())
    if work is not None:
        await work


def test_target_has_seeds() -> None:
    assert {folder.name for folder in SEEDS.iterdir()} == set(TARGETS)
