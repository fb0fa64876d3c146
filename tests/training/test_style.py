"""Tests of mixed styles."""

import pytest
import torch

from lib.training import style


def _features() -> torch.Tensor:
    return torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def test_a_mixed_film_keeps_its_pattern_and_takes_a_style_between_two_films() -> None:
    features = _features() * torch.arange(1, 7).view(6, 1, 1, 1) + 1
    for seed in range(20):  # half of the batches are mixed
        torch.manual_seed(seed)
        mixed = style.mix_styles(features)
        if not torch.equal(mixed, features):
            break
    else:
        pytest.fail("no batch was mixed")
    centred = mixed - mixed.mean((2, 3), keepdim=True)
    pattern = features - features.mean((2, 3), keepdim=True)
    alike = torch.cosine_similarity(centred.flatten(2), pattern.flatten(2), dim=2)
    torch.testing.assert_close(alike, torch.ones(6, 3), atol=1e-4, rtol=0)
    deviations = features.std((2, 3))
    assert (mixed.std((2, 3)) >= deviations.min(0).values - 1e-3).all()
    assert (mixed.std((2, 3)) <= deviations.max(0).values + 1e-3).all()


def test_half_of_the_batches_stay_as_they_are() -> None:
    features = _features()
    torch.manual_seed(0)
    same = sum(torch.equal(style.mix_styles(features), features) for _ in range(400))
    assert 160 <= same <= 240
