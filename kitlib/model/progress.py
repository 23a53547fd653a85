"""Each layer of a network as a step of progress: the finest sign that slow work is no hang."""

from __future__ import annotations

from torch import nn

from kitlib.runtime import heartbeat


def report_layers(model: nn.Module) -> None:
    """Have each layer count as a step, forward when it begins and backward when its gradient is there.

    One image may take a large model minutes on a CPU, and an iteration a quarter of an hour; one layer does
    not.
    """
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(lambda *_: heartbeat.beat())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda _: heartbeat.beat())
