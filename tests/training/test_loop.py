"""Frozen layers, class weights, seeds, and inputs."""

import copy

import numpy as np
import pytest
import torch

from lib.network import backbones
from lib.network.backbones import BACKBONES, to_input
from lib.training import loop
from lib.training.batches import freeze
from lib.training.loop import class_weights
from lib.training.plan import Overrides, plan_of
from tests.training.plans import SETTINGS

ROW = BACKBONES["resnet18"]


@pytest.mark.parametrize(
    ("overrides", "trained"),
    [
        (Overrides(), {"head"}),
        (Overrides(fine_tune_last_block=True), {"last_block", "head"}),
        (Overrides(freeze_backbone=False), {"trunk", "last_block", "head"}),
    ],
)
def test_frozen_means_parameters_and_batch_norm_statistics(
    overrides: Overrides, trained: set[str]
) -> None:
    torch.manual_seed(0)
    network = backbones.build(ROW, classes=3)
    before = copy.deepcopy(network.state_dict())
    frozen, learning = freeze(network, plan_of("a", overrides, **SETTINGS))
    optimizer = torch.optim.AdamW(learning.parameters(), lr=1e-2)
    for _ in range(2):
        learning.train()
        with torch.no_grad():
            features = frozen(torch.randn(4, 3, 64, 64))
        torch.nn.functional.cross_entropy(learning(features), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    changed = {
        name.split(".")[0]
        for name, tensor in network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert changed == trained


def test_class_weights_go_from_nothing_to_full_balance() -> None:
    targets = [0] * 90 + [1] * 10
    assert class_weights(targets, 2, 0.0).tolist() == [1, 1]
    full = class_weights(targets, 2, 1.0)
    assert float(full[0] * 90) == pytest.approx(float(full[1] * 10))


def test_inputs_are_grey_in_three_channels_and_normalised_by_the_backbone() -> None:
    films = [np.full((8, 8), 255, dtype=np.uint8), np.zeros((8, 8), dtype=np.uint8)]
    batch = to_input(films, ROW)
    assert batch.shape == (2, 3, 8, 8)
    assert batch[0, :, 0, 0].tolist() == pytest.approx(
        [(1 - m) / s for m, s in zip(ROW.mean, ROW.std, strict=True)]
    )
    lite = to_input(films, BACKBONES["efficientnet_lite0"])
    assert lite[0].unique().tolist() == [1.0]
    assert lite[1].unique().tolist() == [-1.0]


def test_dropout_seeds_differ_between_batches_and_repeat_between_runs() -> None:
    seeds = [loop._seed_of(0, epoch, step) for epoch in range(3) for step in range(3)]
    assert len(set(seeds)) == 9
    assert seeds[0] == loop._seed_of(0, 0, 0)
