"""Our CPU kernels in a PyTorch model: `RNN`, `GRU`, `LSTM` and `Embedding` as torch.nn has them, and `replace`, which
swaps them in.

    import rnnbench.torch
    rnnbench.torch.replace(model)

Parameters, shapes, initial states, packed sequences and state_dict are those of torch.nn; forward and backward are
ours, in float32 and float64 on the CPU, by as many threads as `torch.set_num_threads` says. A layer is one custom
operator, which `torch.compile` leaves whole. A layer that is given the output of an `Embedding` projects each unique
token once, and gives its gradient to the weights. Subnormal numbers are zero inside the kernels.
"""

from __future__ import annotations

import abc
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils.rnn import PackedSequence
from torch.utils.weak import WeakTensorKeyDictionary

from rnnbench.kernels.cpu import pass_record
from rnnbench.kernels.cpu.layer_pass import LayerRunner, steps_kept, tape_parts
from rnnbench.kernels.cpu.pass_record import aligned

_CODES = {"RNN_TANH": pass_record.RNN, "GRU": pass_record.GRU, "LSTM": pass_record.LSTM}
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}

# What waits for the next call: runners by what they are made for, and memory of tapes, at most so many.
_RUNNERS: dict[tuple[Any, ...], list[LayerRunner]] = {}
_TAPES: list[_TapeMemory] = []
_MOST_TAPES = 16
_LOCK = threading.RLock()  # a tape may come back, by the collector, in the thread that is taking one


class _TapeMemory:
    """Memory that one tape at a time has."""

    def __init__(self, size: int) -> None:
        self.bytes = aligned((size,), np.uint8)

    @classmethod
    def take(cls, size: int) -> _TapeMemory:
        """Of those that wait the least with room, unless most of that would lie idle; else new memory."""
        with _LOCK:
            fits = [tape for tape in tuple(_TAPES) if size <= tape.bytes.size <= 4 * size]
            if not fits:
                return cls(size)
            found = min(fits, key=lambda tape: tape.bytes.size)
            with suppress(ValueError):  # the collector has given one back meanwhile, and this one had to go
                _TAPES.remove(found)
            return found

    def give_back(self) -> None:
        with _LOCK:
            _TAPES.append(self)
            if len(_TAPES) > _MOST_TAPES:
                del _TAPES[0]

    def tensor(self, numbers: int, dtype: str) -> Tensor:
        """The tape as a tensor (numbers,): the memory comes back when nobody has that any more."""
        view = self.bytes[: numbers * np.dtype(dtype).itemsize].view(dtype)
        weakref.finalize(view, self.give_back).atexit = False
        return torch.from_numpy(view)


@contextmanager
def _runner(*made_for: Any) -> Iterator[LayerRunner]:
    """A runner that no other call has."""
    with _LOCK:
        waiting = _RUNNERS.setdefault(made_for, [])
        runner = waiting.pop() if waiting else None
    runner = runner or LayerRunner(*made_for)
    yield runner
    with _LOCK:
        waiting.append(runner)


class _RowsOfBatch:
    """Where the rows of a batch lie in x of a shape: time first, batch first, or packed, the longest first."""

    def __init__(self, x: Sequence[int], batch_sizes: Tensor | None, batch_first: bool) -> None:
        self.lengths: np.ndarray | None = None
        if batch_sizes is not None:
            sizes = batch_sizes.numpy()
            self.B, self.T, self.steps, self.row_apart = int(sizes[0]), len(sizes), x[0], 1
            self.steps_at = np.cumsum(sizes) - sizes
            self.lengths = np.searchsorted(-sizes, -np.arange(self.B), side="left").astype(np.int32)
            return
        self.B, self.T = x[:2] if batch_first else (x[1], x[0])
        self.steps, self.row_apart = self.B * self.T, self.T if batch_first else 1
        self.steps_at = np.arange(self.T) * (1 if batch_first else self.B)

    def values(self) -> dict[str, int]:
        """As a runner reads them."""
        return {
            "has_lengths": self.lengths is not None,
            "lengths": 0 if self.lengths is None else self.lengths.ctypes.data,
            "steps_at": self.steps_at.ctypes.data,
            "row_apart": self.row_apart,
        }


class _Embedded(NamedTuple):
    """What the output of an embedding has with it: its tokens and weights, the row that is not trained, where it stands
    in autograd's graph, and how often output and tokens had been written to then. For one call of a layer, x that it is
    given, and the output where x is a view of that.
    """

    tokens: Tensor
    weight: Tensor
    padding: int | None
    node: Any
    written: tuple[int, int, int]
    outputs: tuple[Tensor, ...] = ()


def _embedded(x: Tensor) -> _Embedded | None:
    """What x is the embedding of, or its transpose, if it still is: what somebody has written to is not, nor what has
    another way back than by those alone.
    """
    outputs = [t for t in (x, x._base) if t is not None and t in _OUTPUTS]
    if not outputs:
        return None
    output, note = outputs[0], _OUTPUTS[outputs[0]]
    if _written(output, note.tokens) != note.written or note.weight.dtype != x.dtype:
        return None
    node = x.grad_fn
    if x is not output:
        turned = output.transpose(0, 1)
        if x.shape != turned.shape or x.stride() != turned.stride():
            return None
        if node is not None:
            if node.name() not in ("TransposeBackward0", "PermuteBackward0"):
                return None
            node = node.next_functions[0][0]
        note = note._replace(tokens=note.tokens.transpose(0, 1))
    if x.requires_grad and (node is None or node is not note.node):
        return None
    return note._replace(outputs=(x,) if x is output else (x, output))


def _written(output: Tensor, tokens: Tensor) -> tuple[int, int, int]:
    """What is another when one of them has been written to, or `output.data` set."""
    return output._version, tokens._version, output.data_ptr()


# Of each output of an embedding; beside it and not an attribute of it, which would be saved and copied with it.
_OUTPUTS = WeakTensorKeyDictionary()


def _runs_as_it_stands(*tensors: Tensor | None) -> bool:
    """Whether nobody looks on: no compiler, tracer or transform, and these are tensors and nothing else."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or torch._C._get_tracing_state():
        return False
    if torch._C._functorch.peek_interpreter_stack() or _is_dual():  # torch.func, whose tensors are of type Tensor
        return False
    return all(t is None or type(t) in (Tensor, nn.Parameter) for t in tensors)


def _is_dual() -> bool:
    """Whether somebody differentiates forward."""
    return forward_ad._current_level >= 0


class _RowsOfOneTokenDiffer(Exception):
    """Somebody has written to the output of an embedding where PyTorch does not count it, as through `.data`."""


def _no_token(token: int, V: int) -> IndexError:
    return IndexError(f"token {token} is not in the vocabulary of the embedding: 0 to {V - 1}")


# One layer, in one or two directions: x (T, B, E), (B, T, E) or packed (N, E); h and c (D, B, H); parameters of the one
# forward in time, then of the other. Gives all states, as x lies, the last ones, and, if `keeps`, the tape.
_PARAMETERS = (
    "Tensor w_ih, Tensor w_hh, Tensor? b_ih, Tensor? b_hh, Tensor? w_ih_reverse, Tensor? w_hh_reverse, "
    "Tensor? b_ih_reverse, Tensor? b_hh_reverse"
)
_LIBRARY = torch.library.Library("rnnbench", "DEF")
_LIBRARY.define(
    f"layer(Tensor x, Tensor? batch_sizes, Tensor h, Tensor? c, {_PARAMETERS}, str mode, bool batch_first, bool keeps)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
# From the gradients of these, where there are such, those of x, h, c and the parameters: empty where not asked for
_LIBRARY.define(
    "layer_backward(Tensor? dy, Tensor? dh, Tensor? dc, Tensor tape, SymInt[] x, Tensor? batch_sizes, SymInt[] h, "
    f"{_PARAMETERS}, str mode, bool batch_first, bool learns_inputs, bool learns_states)"
    f" -> ({', '.join(['Tensor'] * 11)})"
)

_Parameters = tuple[Tensor | None, ...]


def _directions(parameters: _Parameters) -> list[_Parameters]:
    return [parameters[at : at + 4] for at in (0, 4) if parameters[at] is not None]


def _checked(x: Tensor, others: Sequence[Tensor | None]) -> str:
    """The number type of all of them; TypeError where they differ, or our kernels have no such."""
    kinds = {x.dtype} | {other.dtype for other in others if other is not None}
    if len(kinds) > 1 or x.dtype not in _DTYPES:
        names = " and ".join(sorted(map(str, kinds)))
        raise TypeError(
            f"x, states and parameters are of {names}; these layers compute in float32 or float64, all of one: convert "
            "them, and leave this layer out of autocast"
        )
    return _DTYPES[x.dtype]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _values_of(parameters: _Parameters, prefix: str = "") -> dict[str, int]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return {f"{prefix}{name}": _address(tensor) for name, tensor in zip(names, parameters, strict=True)}


def _tape_numbers(mode: str, E: int, H: int, dtype: str, B: int, kept: int, tokens: int | None = None) -> int:
    return sum(tape_parts(_CODES[mode], E, H, dtype, B, kept, tokens).values())


def _layer(
    x: Tensor, batch_sizes: Tensor | None, h: Tensor, c: Tensor | None, *rest: Any, of: _Embedded | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and what it is `of`, if that is known."""
    *given, mode, batch_first, keeps = rest
    dtype, x, h, c = _checked(x, (h, c, *given)), x.contiguous(), h.contiguous(), None if c is None else c.contiguous()
    directions = _directions(tuple(None if p is None else p.contiguous() for p in given))
    rows, E, (D, B, H) = _RowsOfBatch(x.shape, batch_sizes, batch_first), x.shape[-1], h.shape
    y, h_n, c_n = x.new_empty((*x.shape[:-1], D * H)), torch.empty_like(h), x.new_empty(0 if c is None else c.shape)
    kept = rows.T if keeps else steps_kept(rows.T)
    if B == 0:
        return y, h_n, c_n, x.new_zeros(int(keeps))
    V, tokens = (0, None) if of is None else (of.weight.shape[0], of.tokens.to(torch.int64).contiguous())
    numbers, size = _tape_numbers(mode, E, H, dtype, B, kept, rows.T if V else None), x.element_size()
    memory, threads = _TapeMemory.take((D * numbers + 1) * size), torch.get_num_threads()
    with _runner(_CODES[mode], E, H, directions[0][2] is not None, dtype, threads) as runner:
        for d, parameters in enumerate(directions):
            state = d * B * H * size
            unknown = runner.run(
                False, B, rows.T, rows.steps, memory.bytes.ctypes.data + d * numbers * size, keeps,
                rows.values() | _values_of(parameters) | {
                    "R": D * H, "out_at": d * H, "turns": d, "inputs": x.data_ptr(), "outputs": y.data_ptr(),
                    "initial": h.data_ptr() + state, "initial_cell": _address(c) + state,
                    "state": h_n.data_ptr() + state, "state_cell": c_n.data_ptr() + state,
                    "token_ids": _address(tokens),
                },
                V,
            )  # fmt: skip
            if unknown < 0:
                raise _RowsOfOneTokenDiffer
            if unknown and tokens is not None:
                raise _no_token(int(tokens.view(-1)[unknown - 1]), V)
    if keeps:
        tape = memory.tensor(D * numbers + 1, dtype)
        tape[-1] = threads  # by which rows are cut, on the way back too
        return y, h_n, c_n, tape
    memory.give_back()
    return y, h_n, c_n, x.new_empty(0)


def _layer_shapes(
    x: Tensor, batch_sizes: Tensor | None, h: Tensor, c: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_layer` gives, without numbers: for compilers."""
    *parameters, mode, batch_first, keeps = rest
    T = x.shape[1 if batch_first else 0] if batch_sizes is None else batch_sizes.shape[0]
    directions, B = _directions(tuple(parameters)), h.shape[1]
    D, E, H = len(directions), *(int(weight.shape[1]) for weight in parameters[:2])
    numbers = D * _tape_numbers(mode, E, H, _DTYPES[x.dtype], B, T) + 1 if keeps else 0
    y, c_n = x.new_empty((*x.shape[:-1], D * H)), x.new_empty(0 if c is None else c.shape)
    return y, h.new_empty(h.shape), c_n, x.new_empty(numbers)


def _layer_backward(
    dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, tape: Tensor, x: Sequence[int],
    batch_sizes: Tensor | None, h: Sequence[int], *rest: Any, of: _Embedded | None = None, learns_tokens: bool = False,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Of x that is `of` an embedding one gradient more, of its weights: empty where not asked for."""
    *given, mode, batch_first, learns_inputs, learns_states = rest
    dy, dh, dc = (None if d is None else d.contiguous() for d in (dy, dh, dc))
    tape, directions = tape.contiguous(), _directions(tuple(None if p is None else p.contiguous() for p in given))
    rows, E, (D, B, H) = _RowsOfBatch(x, batch_sizes, batch_first), x[-1], h
    found = _layer_backward_shapes(dy, dh, dc, tape, x, batch_sizes, h, *rest)
    V = 0 if of is None else of.weight.shape[0]
    d_weight = tape.new_zeros((V, E) if learns_tokens else 0)
    if B == 0:
        return *(grad.zero_() for grad in found), d_weight
    dx, dh_0, dc_0, *d_parameters = found
    dtype, size, threads = _DTYPES[tape.dtype], tape.element_size(), int(tape[-1])
    with _runner(_CODES[mode], E, H, directions[0][2] is not None, dtype, threads) as runner:
        zeros = runner.zero_state(B, rows.T)
        for d, (parameters, grads) in enumerate(zip(directions, _directions(tuple(d_parameters)), strict=False)):
            state, numbers = d * B * H * size, (tape.numel() - 1) // D
            runner.run(
                True, B, rows.T, rows.steps, tape.data_ptr() + d * numbers * size, True,
                rows.values() | _values_of(parameters) | _values_of(grads, "d_") | {
                    "R": D * H, "out_at": d * H, "turns": d, "emits": dy is not None, "d_outputs": _address(dy),
                    "d_last": zeros if dh is None else dh.data_ptr() + state,
                    "d_last_cell": zeros if dc is None else dc.data_ptr() + state,
                    "learns_states": learns_states, "d_initial": dh_0.data_ptr() + state,
                    "d_initial_cell": dc_0.data_ptr() + state,
                    "learns_inputs": learns_inputs, "d_inputs": dx.data_ptr(), "adds_inputs": d,
                    "learns_tokens": learns_tokens, "d_embedding": d_weight.data_ptr(),
                },
                V,
            )  # fmt: skip
    if learns_tokens and of is not None and of.padding is not None:
        d_weight[of.padding] = 0
    return *found, d_weight


def _layer_backward_shapes(
    dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, tape: Tensor, x: Sequence[int],
    batch_sizes: Tensor | None, h: Sequence[int], *rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """What `_layer_backward` gives, not yet written."""
    *given, mode, _, learns_inputs, learns_states = rest
    dx = tape.new_empty(x if learns_inputs else 0)
    dh_0, dc_0 = (tape.new_empty(h if learns_states and there else 0) for there in (True, mode == "LSTM"))
    return dx, dh_0, dc_0, *(tape.new_empty(0 if p is None else p.shape) for p in given)


class _Layer(torch.autograd.Function):
    """A layer with a way back. By hand and not by `torch.library.register_autograd`, which looks at the schema anew in
    each call, for longer than a small layer takes.

    What x is `of`, if that is known, the weights of that embedding, and `_PROBE` come before what the operator takes.
    Where they are given, the gradient goes from here to the weights, past x, unless somebody asks for that of x.
    """

    @staticmethod
    def forward(ctx: Any, of: _Embedded | None, weight: Tensor | None, probe: Tensor | None, *inputs: Any) -> Any:
        x, batch_sizes, h, _, *parameters, mode, batch_first, _ = inputs
        output, of = _layer_of(of, inputs)
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)
        ctx.shapes, ctx.arguments, ctx.of = (x.shape, h.shape), (mode, batch_first), of
        ctx.save_for_backward(output[3], batch_sizes, *parameters)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (_, to_weight, _, *needs), (tape, batch_sizes, *parameters), (x, h) = (
            ctx.needs_input_grad, ctx.saved_tensors, ctx.shapes
        )  # fmt: skip
        past_x = to_weight and ctx.of is not None and _passes_by(ctx)
        needs[0] = needs[0] and not past_x
        inputs = (
            *grads[:3], tape, x, batch_sizes, h, *parameters, *ctx.arguments, needs[0], needs[2] or needs[3]
        )  # fmt: skip
        d_weight = None
        if ctx.of is None:
            found = torch.ops.rnnbench.layer_backward.default(*inputs)
        else:
            call = partial(_layer_backward, of=ctx.of, learns_tokens=past_x)
            *found, d_weight = _LayerBackward.apply(call, *inputs) if torch.is_grad_enabled() else call(*inputs)
        wanted = (needs[0], *needs[2:12])
        dx, *others = (grad if want else None for grad, want in zip(found, wanted, strict=True))
        return None, d_weight if past_x else None, None, dx, None, *others, None, None, None


# An input of every layer that knows its embedding. Where the engine goes to it, it goes everywhere: `backward()`, and
# not `autograd.grad` or `backward(inputs=...)`, which may ask for the gradient of an embedding's output.
_PROBE = torch.zeros((), requires_grad=True)


def _passes_by(ctx: Any) -> bool:
    """Whether nobody asks for the gradient of x, or of what it is a view of, and has set a hook on it."""
    every = torch._C._will_engine_execute_node(ctx.next_functions[1][0])  # of tensors alone
    return every and not any(t._backward_hooks or t.retains_grad for t in ctx.of.outputs)


class _LayerBackward(torch.autograd.Function):
    """The way back of a layer, which has none itself."""

    @staticmethod
    def forward(ctx: Any, call: Any, *inputs: Any) -> Any:
        return call(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "the gradient of a gradient is not computed by rnnbench.torch; use the layer of torch.nn where it is needed"
        )


def _below_autograd(operator: Any, *inputs: Any, **named: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*inputs, **named)


def _layer_of(of: _Embedded | None, inputs: tuple[Any, ...]) -> tuple[Any, _Embedded | None]:
    """A layer below autograd; and what x is really `of`."""
    with suppress(_RowsOfOneTokenDiffer):
        if of is not None:
            return _below_autograd(_layer, *inputs, of=of), of
    return _below_autograd(torch.ops.rnnbench.layer.default, *inputs), None


def _layer_autograd(*inputs: Any) -> Any:
    keeps = inputs[-1]
    if keeps:
        return _Layer.apply(None, None, None, *inputs)
    tensors = [given for given in inputs if isinstance(given, Tensor)]
    if _is_dual() and any(forward_ad.unpack_dual(given).tangent is not None for given in tensors):
        raise NotImplementedError("forward mode is not computed by rnnbench.torch; use the layer of torch.nn for it")
    return _below_autograd(torch.ops.rnnbench.layer.default, *inputs)


def _layer_backward_autograd(*inputs: Any) -> Any:
    call = partial(_below_autograd, torch.ops.rnnbench.layer_backward.default)
    return _LayerBackward.apply(call, *inputs) if torch.is_grad_enabled() else call(*inputs)


_LIBRARY.impl("layer", _layer, "CPU")
_LIBRARY.impl("layer", _layer_autograd, "Autograd")
_LIBRARY.impl("layer_backward", lambda *inputs: _layer_backward(*inputs)[:-1], "CPU")
_LIBRARY.impl("layer_backward", _layer_backward_autograd, "Autograd")
torch.library.register_fake("rnnbench::layer", _layer_shapes, lib=_LIBRARY)
torch.library.register_fake("rnnbench::layer_backward", _layer_backward_shapes, lib=_LIBRARY)


class _Recurrence(nn.RNNBase, abc.ABC):
    """Layers of one cell, as `nn.RNNBase` makes and keeps them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(self._mode(), *args, **kwargs)
        if reason := _unsupported(self):
            raise ValueError(reason)

    @classmethod
    @abc.abstractmethod
    def _mode(cls) -> str:
        """What `nn.RNNBase` calls the cell."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        """As that of torch.nn: (output, h_n), of the lstm (output, (h_n, c_n)).

        `input` (T, B, E), with `batch_first` (B, T, E), one row (T, E), or packed; `hx` (D, B, H), of one row (D, H),
        of the lstm two of them: D is layers times directions.
        """
        packed = isinstance(input, PackedSequence)
        x, batch_sizes, order, back = input if packed else (input, None, None, None)
        lstm, single = self.mode == "LSTM", not packed and x.dim() == 2
        if not packed and x.dim() not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {x.dim()}D instead")
        if x.device.type != "cpu":
            raise RuntimeError(
                f"x is on {x.device}; rnnbench.torch computes on the CPU: take the layer of torch.nn there"
            )
        states = () if hx is None else hx if lstm else (hx,)
        time, batch = (1, 0) if self.batch_first else (0, 1)
        if single:
            for state in states:
                if state.dim() != 2:
                    raise RuntimeError(f"For unbatched 2-D input, hx should also be 2-D but got {state.dim()}-D tensor")
            x, states = x.unsqueeze(batch), tuple(state.unsqueeze(1) for state in states)
        self.check_input(x, batch_sizes)
        expected = self.get_expected_hidden_size(x, batch_sizes)
        if not packed and x.size(time) == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        if hx is None:
            states = (x.new_zeros(expected),) * (1 + lstm)
        else:
            states = tuple(self.permute_hidden(state, order) for state in states)
            for name, state in zip("hc", states, strict=False):
                self.check_hidden_size(state, expected, f"Expected {name} of size {{}}, got {{}}")
        y, h, c = self._layers(x, batch_sizes, *states)
        if packed:
            y = PackedSequence(y, batch_sizes, order, back)
        elif single:
            y, h, c = y.squeeze(batch), h.squeeze(1), c.squeeze(1) if lstm else c
        h = self.permute_hidden(h, back)
        return y, (h, self.permute_hidden(c, back)) if lstm else h

    def _layers(self, x: Tensor, batch_sizes: Tensor | None, h: Tensor, c: Tensor | None = None) -> Any:
        D, last_h, last_c = 1 + self.bidirectional, [], []
        weights = [getattr(self, name) for name in self._flat_weights_names]
        each = 4 if self.bias else 2
        for layer in range(self.num_layers):
            own: list[Tensor | None] = []
            for d in range(2):
                at = (layer * D + d) * each
                own += [*weights[at : at + each], None, None][:4] if d < D else [None] * 4
            states = [None if s is None else s[layer * D : (layer + 1) * D] for s in (h, c)]
            keeps = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *states, *own))
            inputs = (x, batch_sizes, *states, *own, self.mode, self.batch_first, keeps)
            of = _embedded(x) if layer == 0 and _runs_as_it_stands(x, *states, *own) else None
            if of is None:
                x, h_n, c_n, _ = torch.ops.rnnbench.layer(*inputs)
            elif keeps:
                x, h_n, c_n, _ = _Layer.apply(of, of.weight if x.requires_grad else None, _PROBE, *inputs)
            else:
                (x, h_n, c_n, _), _ = _layer_of(of, inputs)
            last_h.append(h_n)
            last_c.append(c_n)
        return x, *(last[0] if self.num_layers == 1 else torch.cat(last) for last in (last_h, last_c))


class RNN(_Recurrence):
    """torch.nn.RNN of the tanh, by our kernels. `dropout` between layers and nonlinearity "relu" are refused."""

    nonlinearity: str = "tanh"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        named = args[3] if len(args) > 3 else kwargs.pop("nonlinearity", "tanh")
        if named != "tanh":
            raise ValueError(f"nonlinearity is {named!r}; our kernels have the tanh: take torch.nn.RNN for another")
        super().__init__(*args[:3], *args[4:], **kwargs)

    @classmethod
    def _mode(cls) -> str:
        return "RNN_TANH"


class GRU(_Recurrence):
    """torch.nn.GRU by our kernels. `dropout` between layers is refused."""

    @classmethod
    def _mode(cls) -> str:
        return "GRU"


class LSTM(_Recurrence):
    """torch.nn.LSTM by our kernels. `dropout` between layers and `proj_size` are refused."""

    @classmethod
    def _mode(cls) -> str:
        return "LSTM"


class Embedding(nn.Embedding):
    """torch.nn.Embedding, from whose output a layer of ours knows what is of one token, and projects that once.

    What is written to, packed or changed on the way there is projected row by row, as without.
    `max_norm`, `scale_grad_by_freq` and `sparse` are computed by torch.nn alone.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As that of torch.nn: (..., E) of tokens (...). IndexError for a token that is not in the vocabulary."""
        if torch.compiler.is_compiling():
            return super().forward(input)
        weight = self.weight  # once: it may be computed, at random
        options = self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse
        try:
            x = nn.functional.embedding(input, weight, *options)
        except IndexError:
            V = self.num_embeddings
            raise _no_token(int(input[(input < 0) | (input >= V)][0]), V) from None
        plain = self.max_norm is None and not self.scale_grad_by_freq and not self.sparse
        counted = not x.is_inference() and not input.is_inference()
        if plain and counted and input.device.type == "cpu" and _runs_as_it_stands(x, input, weight):
            _OUTPUTS[x] = _Embedded(input, weight, self.padding_idx, x.grad_fn, _written(x, input))
        return x


def _unsupported(module: nn.RNNBase) -> str | None:
    """Why our kernels do not compute this layer, and the way out, or None."""
    if module.dropout > 0 and module.num_layers > 1:
        return (
            f"dropout is {module.dropout}; no two libraries draw alike what they drop, so it is not computed here: put "
            "nn.Dropout between layers of one each"
        )
    if module.proj_size > 0:
        return f"proj_size is {module.proj_size}; our kernels project no states: leave it out, or take torch.nn.LSTM"
    if module.mode not in _CODES:
        return "the nonlinearity is relu; our kernels have the tanh: take torch.nn.RNN for another"
    for parameter in module.parameters():
        if parameter.device.type not in ("cpu", "meta"):
            return f"its parameters are on {parameter.device}; our kernels compute on the CPU: leave it as it is there"
        if parameter.dtype not in _DTYPES:
            return f"its parameters are {parameter.dtype}; our kernels compute float32 and float64: convert it first"
    return None


_OURS: dict[type[nn.Module], type[nn.Module]] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM, nn.Embedding: Embedding}


def replace(module: nn.Module) -> nn.Module:
    """Let every nn.RNN, nn.GRU, nn.LSTM and nn.Embedding in a model, or the module itself, be one of ours from now on;
    returns it.

    In place: parameters, hooks and names stay, so that optimizers and state_dicts go on. Classes that inherit from
    those are left alone. ValueError, with nothing replaced, where our kernels do not compute one of them.
    """
    found = {name: part for name, part in module.named_modules() if type(part) in _OURS}
    reasons = {
        name: reason for name, part in found.items() if isinstance(part, nn.RNNBase) and (reason := _unsupported(part))
    }
    if reasons:
        raise ValueError("; ".join(f"{name or type(module).__name__}: {reason}" for name, reason in reasons.items()))
    for part in found.values():
        part.__class__ = _OURS[type(part)]
    return module
