"""Tensors that pose as a GPU's: they say ``cuda:0``, hold numbers on the CPU, and refuse what CUDA refuses.

Within ``posing()``, whatever is asked for on ``cuda`` becomes such a tensor. An operator that gets one of
them beside a tensor of the CPU fails as it would on a GPU. All values are computed, so that boxes are found,
sorted, suppressed and cut as in earnest, and code whose path depends on them is reached.

PyTorch's C++ takes them for tensors of the CPU: the engine of a build for CUDA would otherwise ask the driver
for a stream, and end the process where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only, tree_unflatten

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten
#: Operators whose other tensors may lie on the CPU: a copy, and indices, which CUDA fetches.
_FETCHING = {_aten.copy_.default, _aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}
_FETCHING |= {_aten._index_put_impl_.default}
_PRODUCTS = {_aten.convolution.default, _aten.convolution_backward.default, _aten.addmm.default}
_PRODUCTS |= {_aten.mm.default, _aten.bmm.default}


class Posing(Tensor):
    """A tensor of the GPU, as far as Python can tell.

    Attributes:
        held: the same tensor on the CPU.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Posing:
        place = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.size(), dtype=held.dtype, device="cpu", **place)
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Posing({self.held})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _SAYS:
            return _SAYS[func](args[0])
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        _refuse_mixtures(func, tensors)
        made = _calculated(func, tree_map(_held, args), tree_map(_held, kwargs))
        if func._schema.is_mutable and made is not None:
            return _written(func, args, kwargs)
        return tree_map_only(Tensor, Posing, made)


def _refuse_numpy(tensor: Posing) -> Any:
    raise TypeError(
        f"can't convert {GPU} device type tensor to numpy; a tensor of shape {tuple(tensor.shape)}"
    )


_SAYS = {
    Tensor.device.__get__: lambda _: GPU,
    Tensor.is_cuda.__get__: lambda _: True,
    Tensor.is_cpu.__get__: lambda _: False,
    Tensor.get_device: lambda _: GPU.index,
    Tensor.tolist: lambda tensor: tensor.held.tolist(),
    Tensor.numpy: _refuse_numpy,
    Tensor.__array__: _refuse_numpy,
}


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Posing) else value


def _calculated(func: Any, args: Any, kwargs: Any) -> Any:
    """The operator's result; products of 16 bits in 32 and then rounded: the CPU takes minutes for them."""
    types = [x.dtype for x in tree_flatten(args)[0] if isinstance(x, Tensor)]
    if func not in _PRODUCTS or not types or types[0] not in (torch.bfloat16, torch.float16):
        return func(*args, **kwargs)
    made = func(*tree_map_only(Tensor, Tensor.float, args), **kwargs)
    return tree_map_only(Tensor, lambda x: x.to(types[0]), made)


def _written(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator that writes into its arguments gives back: the first of these."""
    places = [(n, a.name) for n, a in enumerate(func._schema.arguments) if a.is_write]
    found = [kwargs[name] if name in kwargs else args[place] for place, name in places]
    returned = len(func._schema.returns)
    return found[0] if returned == 1 else tuple(found[:returned])


def _refuse_mixtures(func: Any, tensors: list[Tensor]) -> None:
    """Raise what CUDA raises for tensors of two devices; a single number may lie anywhere."""
    strangers = [x for x in tensors if not isinstance(x, Posing) and x.dim()]
    if strangers and not (func in _FETCHING and isinstance(tensors[0], Posing)):
        shapes = ", ".join(str(tuple(x.shape)) for x in strangers)
        raise RuntimeError(f"{func}: expected all tensors on {GPU}, but found on cpu: {shapes}")


class _Requests(TorchFunctionMode):
    """Answers what asks for a device: ``torch.zeros(3, device="cuda")``, ``x.to(y.device)``, ``x.cpu()``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.cpu, Tensor.cuda):
            return _moved(args[0], torch.device("cpu" if func is Tensor.cpu else GPU))
        if func is Tensor.to:
            return _to(*args, **kwargs)
        # The wrapper around a tensor cannot take another shape; a new one can.
        if func is Tensor.unsqueeze_:
            func = Tensor.unsqueeze
        if torch.device(kwargs.get("device") or "cpu").type != "cuda":
            return func(*args, **kwargs)
        flat, shape = tree_flatten((args, kwargs))
        held, options = tree_unflatten([_held(x) for x in flat], shape)
        options["device"] = "cpu"
        made = Posing(func(*held, **options).detach())
        return made.requires_grad_() if options.get("requires_grad") else made


def _to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to``, by a device, a type or another tensor."""
    device: Any = kwargs.pop("device", None)
    kwargs.pop("non_blocking", None)
    for value in args:
        if isinstance(value, Tensor):
            device, kwargs["dtype"] = value.device, value.dtype
        elif isinstance(value, torch.dtype):
            kwargs["dtype"] = value
        elif isinstance(value, str | torch.device):
            device = value
    moved = tensor if device is None else _moved(tensor, torch.device(device))
    return moved.to(**kwargs) if kwargs else moved


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device.type == device.type:
        return tensor
    return _Arrive.apply(tensor) if device.type == "cuda" else _Leave.apply(tensor)


class _Arrive(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return Posing(tensor.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _held(gradient)


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Posing) -> Tensor:
        return tensor.held.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Posing(gradient)


class _Autocast(torch.autocast):
    """Mixed precision of ``cuda``, as the CPU has it."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


#: What code asks PyTorch about GPUs, and what a machine with one answers.
_ANSWERS = {
    "torch.cuda.amp.common.amp_definitely_not_available": False,
    "torch.cuda.max_memory_allocated": 0,
    "torch.cuda.empty_cache": None,
}


@contextmanager
def posing() -> Iterator[torch.device]:
    """A machine with one GPU, whose tensors are ``Posing``."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for name, answer in _ANSWERS.items():
            stack.enter_context(mock.patch(name, return_value=answer))
        stack.enter_context(mock.patch("torch.autocast", _Autocast))
        # Inference tensors have no counter of versions, which the views of a wrapper want.
        stack.enter_context(mock.patch("torch.inference_mode", torch.no_grad))
        # A parameter that arrives on the GPU is another object, not the old one with other contents.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        stack.enter_context(_Requests())
        yield GPU
