"""Weight decay where it belongs, and averages of weights against sums done by hand."""

import pytest
import torch
from torch import nn

from kitlib.errors import KitError
from kitlib.train import optim
from kitlib.train.config import OptimConfig
from kitlib.train.optim import MovingAverage


def model():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.BatchNorm2d(2), nn.Linear(4, 4))


def test_norm_layers_are_not_decayed_and_frozen_weights_left_out():
    net = model()
    net[0].bias.requires_grad_(False)
    decayed, free = optim.parameter_groups(net, 0.01)
    assert decayed["weight_decay"] == 0.01
    assert free["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {id(net[0].weight), id(net[3].weight), id(net[3].bias)}
    assert {id(p) for p in free["params"]} == {id(p) for n in (net[1], net[2]) for p in n.parameters()}


def test_sgd_steps_as_by_hand():
    weight = nn.Linear(1, 1, bias=False)
    nn.init.constant_(weight.weight, 1.0)
    optimizer = optim.build(weight, OptimConfig("sgd", momentum=0.9, weight_decay=0.1), lr=1.0)
    optim.set_lr(optimizer, 0.5)
    weight.weight.grad = torch.ones(1, 1)
    optimizer.step()  # velocity 1 + 0.1 * 1 = 1.1
    assert weight.weight.item() == pytest.approx(1 - 0.5 * 1.1)
    optimizer.step()  # velocity 0.9 * 1.1 + 1 + 0.1 * 0.45 = 2.035
    assert weight.weight.item() == pytest.approx(0.45 - 0.5 * 2.035)


def test_adamw_is_built_with_both_groups():
    optimizer = optim.build(model(), OptimConfig("adamw"), lr=1e-3)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-4, 0.0]


def set_to(net, value):
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.fill_(value)


def test_ema_is_the_hand_worked_average_and_forgets_its_start():
    net = nn.BatchNorm1d(1)
    average = MovingAverage(net, decay=0.25)
    values = [1.0, 2.0, 4.0, 8.0]
    # Shares of the new value: 1 (the first), then 1 - min(0.25, (1 + n) / (10 + n)) for n = 1, 2, 3.
    shares = [1.0, 1 - 2 / 11, 1 - 3 / 12, 0.75]
    expected = 0.0
    for value, share in zip(values, shares, strict=True):
        set_to(net, value)
        average.update(net)
        expected += share * (value - expected)
        assert average.model.weight.item() == pytest.approx(expected)
        assert average.model.running_mean.item() == pytest.approx(expected)
    assert average.model.num_batches_tracked.item() == 8  # a counter is copied


def test_an_average_goes_on_from_its_state():
    net = nn.Linear(1, 1)
    one, two = (MovingAverage(net, decay=0.5) for _ in range(2))
    for iteration in range(4):
        set_to(net, float(iteration))
        if iteration == 2:
            two.load_state_dict(one.state_dict())
        one.update(net)
        if iteration >= 2:
            two.update(net)
    # Shares of the new value: 1, then 1 - (1 + n) / (10 + n) for n = 1, 2, 3.
    expected = 0.0
    for value, share in ((1, 9 / 11), (2, 9 / 12), (3, 9 / 13)):
        expected += share * (value - expected)
    assert two.model.weight.item() == one.model.weight.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (OptimConfig, {"name": "adam"}, "did you mean 'adamw'"),
        (OptimConfig, {"momentum": 1.5}, "momentum"),
    ],
)
def test_bad_values_are_refused(cls, values, says):
    with pytest.raises(KitError, match=says):
        cls(**values)
