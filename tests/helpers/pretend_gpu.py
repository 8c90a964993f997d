"""A pretended accelerator: the device path of the library, tested on a machine that has no GPU.

It registers a device "pretend". Its tensors hold their values on the CPU and compute there (autograd, `foreach` and
fused optimizers included), but behave like those of a GPU in the three things that only a GPU shows:

- an operation that mixes a tensor of the device with a CPU tensor of one dimension or more raises `DeviceMismatch`; a
  0-dimensional CPU tensor is a number, and passes, as on CUDA;
- each time the host reads a value (`.item()`, `float(t)`, `bool(t)`, `.tolist()`, `.cpu()`, a boolean mask as an
  index, `nonzero`) is recorded in `waits`: on a GPU the host stops there until the device has caught up;
- each copy from the CPU to the device is recorded in `uploads`, and in `waits` unless it is `non_blocking`.

    with pretend_gpu() as gpu:
        x = ud.sample(model.to(gpu.device), solver, grid, shape, seeds=4, device=gpu.device).x
    print(gpu.waits)  # must not grow with the number of steps

It uses torch's Python backend (torch >= 2.9, `AVAILABLE`).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

try:
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
except ImportError:  # torch < 2.9
    AVAILABLE = False
else:
    AVAILABLE = not torch.cuda.is_available()  # a second accelerator beside a real one would confuse torch

NAME = "pretend"
_ATEN = torch.ops.aten
# Operations whose result's shape, or whose result itself, the host must know.
_READS = (
    _ATEN.nonzero, _ATEN.masked_select, _ATEN._unique2, _ATEN.unique_dim, _ATEN.unique_consecutive, _ATEN.equal,
    _ATEN.is_nonzero,
)  # fmt: skip
_INDEXING = (_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._index_put_impl_)
_COPIES = (_ATEN.copy_, _ATEN._copy_from)


class DeviceMismatch(RuntimeError):
    """Tensors of two devices met in one operation."""


class Event(NamedTuple):
    """What happened, and the innermost line of the package that caused it ("file:line")."""

    what: str
    where: str


class PretendGPU:
    """What happened on the device: reads by the host, and copies from it."""

    def __init__(self) -> None:
        self.device = torch.device(NAME, 0)
        self.waits: list[Event] = []
        self.uploads: list[Event] = []


_recorder: PretendGPU | None = None


def _line() -> str:
    """The innermost line of the package on the stack; "tests" if there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/unidiff/" in name and "site-packages" not in name and "/tests/" not in name:
            return f"{name.rsplit('/unidiff/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "tests"


def _wait(what: str) -> None:
    if _recorder is not None:
        _recorder.waits.append(Event(what, _line()))


def _upload(tensor: torch.Tensor, non_blocking: bool) -> None:
    if _recorder is not None and tensor.ndim > 0:
        _recorder.uploads.append(Event("upload", _line()))
        if not non_blocking:
            _recorder.waits.append(Event("blocking upload", _line()))


class Remote(torch.Tensor):
    """A tensor of the device, around the CPU tensor `held`."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor, requires_grad: bool = False) -> Remote:
        remote = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        remote.held = values
        return remote

    def __repr__(self, **options: Any) -> str:  # type: ignore[override]
        return f"Remote({self.held!r})"

    def tolist(self) -> Any:
        _wait("tolist")
        return self.held.tolist()

    def numpy(self, *args: Any, **options: Any) -> Any:
        raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _compute(func, args, kwargs or {})


def _values(x: Any) -> Any:
    return x.held if isinstance(x, Remote) else x


def _leaves(x: Any) -> Iterator[Any]:
    """The arguments of an operation one by one, those in lists too: torch.utils._pytree takes longer than they do."""
    if isinstance(x, (list, tuple)):
        for item in x:
            yield from _leaves(item)
    else:
        yield x


def _mapped(function: Callable[[Any], Any], x: Any) -> Any:
    """Arguments or results with a function of each."""
    if isinstance(x, (list, tuple)):
        return type(x)([_mapped(function, item) for item in x])
    return function(x)


def _is_remote(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation: what a GPU would not do raises, what stops the host is recorded, the rest is done on the CPU."""
    tensors = [x for x in _leaves([args, *kwargs.values()]) if isinstance(x, torch.Tensor)]
    remote = [x for x in tensors if isinstance(x, Remote)]
    local = [x for x in tensors if not isinstance(x, Remote)]
    device, operation = kwargs.get("device"), func.overloadpacket
    plain, options = _mapped(_values, args), {name: _mapped(_values, value) for name, value in kwargs.items()}
    if operation is _ATEN._to_copy:
        return _to_copy(func, plain, options, bool(remote), device)
    if operation in _COPIES:
        source, target = args[:2] if operation is _ATEN._copy_from else (args[1], args[0])
        return _copy(source, target, bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking")))
    if operation is _ATEN._local_scalar_dense:
        if remote:
            _wait("item")
        return func(*plain)
    if operation in _READS and remote:
        _wait(str(operation))
    if operation in _INDEXING and remote:
        if any(isinstance(i, Remote) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            _wait("mask as an index")
        for index in (i for i in args[1] if isinstance(i, torch.Tensor) and not isinstance(i, Remote)):
            _upload(index, False)  # an index may be on the CPU, and is copied
        local = []
    if remote and (bad := [tuple(x.shape) for x in local if x.ndim > 0]):
        shapes = [tuple(x.shape) for x in remote]
        raise DeviceMismatch(f"{func}: {NAME} tensors {shapes} with CPU tensors {bad} at {_line()}")
    if _is_remote(device):
        options["device"] = "cpu"
    if options.get("pin_memory"):
        options["pin_memory"] = False
    out = func(*plain, **options)
    if not (_is_remote(device) if device is not None else remote):
        return out
    known = {id(x.held): x for x in remote}  # what was changed in place is the same tensor
    return _mapped(lambda x: _wrapped(x, known), out)


def _wrapped(x: Any, known: dict[int, Remote]) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return known[id(x)] if id(x) in known else Remote(x)


def _to_copy(func: Any, plain: Any, options: dict[str, Any], from_remote: bool, device: Any) -> Any:
    """`t.to(...)`: between devices or dtypes."""
    to_remote = _is_remote(device) if device is not None else from_remote
    if from_remote and not to_remote:
        _wait("copy to the CPU")
    if to_remote and not from_remote:
        _upload(plain[0], bool(options.get("non_blocking")))
    if device is not None:
        options["device"] = "cpu"
    if options.get("pin_memory"):
        options["pin_memory"] = False
    out = func(*plain, **options)
    if not to_remote:
        return out
    return Remote(out.clone() if out.data_ptr() == plain[0].data_ptr() else out)


class _Factories(TorchDispatchMode):
    """`torch.zeros(..., device="pretend")` and `t.to("pretend")` have no tensor of the device: this mode sees them."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to skip it takes as long as an operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _register() -> Any:
    """Register the device with torch; the library must stay alive as long as it is used."""

    class Module(_DummyBackendModule):
        """What `torch.pretend` is."""

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16, torch.float16]

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    library = torch.library.Library("aten", "IMPL")
    # What passes by Python modes, such as `torch.tensor([...], device="pretend")`, ends here.
    kernels: dict[str, Callable[..., Any]] = {
        "empty.memory_format": lambda size, **options: Remote(torch.empty(size, dtype=options.get("dtype"))),
        "empty_strided": lambda size, stride, **options: Remote(
            torch.empty_strided(size, stride, dtype=options.get("dtype"))
        ),
        "_copy_from": lambda source, target, non_blocking=False: _copy(source, target, non_blocking),
    }
    for name, kernel in kernels.items():
        library.impl(name, kernel, "PrivateUse1")
    return library


def _copy(source: torch.Tensor, target: torch.Tensor, non_blocking: bool) -> torch.Tensor:
    if isinstance(source, Remote) and not isinstance(target, Remote):
        _wait("copy to the CPU")
    if isinstance(target, Remote) and not isinstance(source, Remote):
        _upload(source, non_blocking)
    _values(target).copy_(_values(source))
    return target


@contextlib.contextmanager
def pretend_gpu() -> Iterator[PretendGPU]:
    """The device inside the block; yields the record of what happened on it."""
    global _recorder
    outer, _recorder = _recorder, PretendGPU()
    try:
        with _Factories():
            yield _recorder
    finally:
        _recorder = outer


_LIBRARY = _register() if AVAILABLE else None
