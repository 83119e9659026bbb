"""`rnnbench.torch` beside torch.nn: the same numbers, shapes, errors and state_dict; and what it refuses."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest

from rnnbench import backends

if reason := backends.missing("torch"):
    pytest.skip(reason, allow_module_level=True)

import torch
from torch import nn
from torch.nn.utils import rnn as packing

from rnnbench import torch as ours
from rnnbench.kernels.cpu.layer_pass import ROWS_BACK

CELLS = ("RNN", "GRU", "LSTM")
LIMITS = {torch.float32: 3e-5, torch.float64: 1e-12}


def both(cell, *sizes, dtype=torch.float64, **options):
    """A layer of torch.nn and one of ours with the same parameters."""
    torch.manual_seed(3)
    theirs = getattr(nn, cell)(*sizes, dtype=dtype, **options)
    mine = getattr(ours, cell)(*sizes, dtype=dtype, **options)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def answers(layer, x, lengths=None, given=True, read=("y", "h", "c")):
    """Outputs, last states, and the gradients of a random sum of `read` by all that goes in."""
    layer.zero_grad()
    lstm, first = isinstance(layer, nn.LSTM | ours.LSTM), layer.batch_first
    x, D = x.clone().requires_grad_(), layer.num_layers * (1 + layer.bidirectional)
    shape = (D, x.shape[0 if first else 1], layer.hidden_size)
    states = [random(*shape, dtype=x.dtype, seed=i).requires_grad_() for i in range(1 + lstm)] if given else []
    rows = x if lengths is None else packing.pack_padded_sequence(x, lengths, first, enforce_sorted=False)
    y, last = layer(rows, (tuple(states) if lstm else states[0]) if given else None)
    if lengths is not None:
        y, _ = packing.pad_packed_sequence(y, first)
    named = dict(zip("yhc", (y, *last) if lstm else (y, last), strict=False))
    total = sum(
        (named[name] * random(*named[name].shape, dtype=x.dtype, seed=9)).sum() for name in read if name in named
    )
    total.backward()
    grads = [x.grad, *(state.grad for state in states), *(p.grad for p in layer.parameters())]
    return [*named.values(), *(torch.zeros(()) if grad is None else grad for grad in grads)]


def assert_alike(theirs, mine, x, limit=None, **options):
    limit = limit or LIMITS[x.dtype]
    expected, found = (answers(layer, x, **options) for layer in (theirs, mine))
    for i, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert a.shape == b.shape, i
        assert a.dtype == b.dtype, i
        assert (a - b).abs().max() <= limit * (1 + a.abs().max()), i


LAYERS = {
    "plain": {}, "no bias": {"bias": False}, "batch first": {"batch_first": True}, "stack": {"num_layers": 3},
    "both": {"bidirectional": True}, "all": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}  # fmt: skip


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_the_same_as_torch(options, cell, dtype):
    """Sizes below, at and above the lanes; rows of one length and of several; with and without states."""
    for E, H, B, T in ((3, 5, 4, 6), (16, 16, 1, 1), (17, 33, 9, 7)):
        theirs, mine = both(cell, E, H, dtype=dtype, **options)
        x = random(*((B, T, E) if mine.batch_first else (T, B, E)), dtype=dtype, seed=5)
        lengths = torch.randint(1, T + 1, (B,), generator=torch.Generator().manual_seed(1))
        lengths[B // 2] = T
        assert_alike(theirs, mine, x)
        assert_alike(theirs, mine, x, lengths=lengths)
        assert_alike(theirs, mine, x, given=False, lengths=lengths)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("read", ["y", "h", "c", "yc"])
def test_gradients_of_some_of_what_comes_out(cell, read):
    if read == "c" and cell != "LSTM":
        return
    theirs, mine = both(cell, 4, 6, num_layers=2, bidirectional=True)
    assert_alike(theirs, mine, random(5, 3, 4), read=read)
    assert_alike(theirs, mine, random(5, 3, 4), lengths=torch.tensor([2, 5, 1]), read=read)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("H", "B", "T"), [(40, 24, 12), (512, 2, 3)], ids=["rows", "columns"])
def test_rows_and_columns_shared_by_threads(cell, threads, H, B, T):
    """Rows for every thread, and few rows with so many weights that threads share the columns of a step."""
    theirs, mine = both(cell, 40, H, dtype=torch.float32)
    x = random(T, B, 40, dtype=torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_alike(theirs, mine, x, limit=2e-4)
        lengths = 1 + torch.arange(B) * (T - 1) // max(1, B - 1)
        assert_alike(theirs, mine, x, lengths=lengths, limit=2e-4)
        first, again = answers(mine, x), answers(mine, x)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
def test_more_rows_than_are_taken_back_together_and_calls_of_other_sizes_between(cell):
    theirs, mine = both(cell, 3, 4)
    for T, B in ((2, int(ROWS_BACK) + 5), (40, 3), (1, 1), (3, int(ROWS_BACK) + 9), (90, 2)):
        assert_alike(theirs, mine, random(T, B, 3))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_against_finite_differences(cell, bidirectional):
    _, mine = both(cell, 3, 2, bidirectional=bidirectional)
    D = 1 + bidirectional
    states = [random(D, 2, 2, seed=i).requires_grad_() for i in range(2 if cell == "LSTM" else 1)]
    names = [name for name, _ in mine.named_parameters()]

    def call(x, *rest):
        states, params = rest[: len(rest) - len(names)], rest[len(rest) - len(names) :]
        hx = tuple(states) if cell == "LSTM" else states[0]
        y, last = torch.func.functional_call(mine, dict(zip(names, params, strict=True)), (x, hx))
        return (y, *last) if cell == "LSTM" else (y, last)

    inputs = (random(3, 2, 3, seed=7).requires_grad_(), *states, *mine.parameters())
    assert torch.autograd.gradcheck(call, inputs)


def test_inference_keeps_no_tape_and_gives_the_same():
    theirs, mine = both("LSTM", 5, 7, num_layers=2, bidirectional=True)
    x = random(50, 3, 5)
    expected, kept = theirs(x), mine(x)
    with torch.inference_mode():
        found = mine(x)
    for a, b, c in zip((expected[0], *expected[1]), (kept[0], *kept[1]), (found[0], *found[1]), strict=True):
        assert torch.equal(b, c)
        torch.testing.assert_close(a, b)
    assert not found[0].requires_grad


def test_two_calls_forward_then_two_back_and_one_graph_twice():
    theirs, mine = both("GRU", 3, 4)
    found = []
    for layer in (theirs, mine):
        first, second = layer(random(4, 2, 3))[0], layer(random(4, 2, 3, seed=1))[0]
        first.square().sum().backward()
        second.sum().backward(retain_graph=True)
        second.sum().backward()
        found.append([p.grad for p in layer.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_a_tape_that_hooks_have_moved():
    theirs, mine = both("LSTM", 3, 4)
    x = random(4, 2, 3)
    theirs(x)[0].square().sum().backward()
    with torch.autograd.graph.save_on_cpu():
        y, _ = mine(x)
    mine(x + 1)[0].sum()  # whose tape may take the memory of the first
    y.square().sum().backward()
    for a, b in zip(theirs.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("cell", CELLS)
def test_one_row_without_a_batch_no_row_and_rows_that_are_not_contiguous(cell):
    theirs, mine = both(cell, 3, 4, num_layers=2)
    for layer in (theirs, mine):
        y, last = layer(random(5, 3))
        h = last[0] if cell == "LSTM" else last
        assert (y.shape, h.shape) == ((5, 4), (2, 4))
    torch.testing.assert_close(theirs(random(5, 3))[0], mine(random(5, 3))[0])
    turned = random(3, 2, 5).permute(2, 1, 0)
    torch.testing.assert_close(theirs(turned)[0], mine(turned)[0])
    torch.testing.assert_close(theirs(random(1, 1, 3).expand(5, 4, 3))[0], mine(random(1, 1, 3).expand(5, 4, 3))[0])
    empty = torch.zeros(5, 0, 3, dtype=torch.float64, requires_grad=True)
    y, _ = mine(empty)
    assert y.shape == (5, 0, 4)
    y.sum().backward()
    assert all(not p.grad.any() for p in mine.parameters())


def test_frozen_parameters_get_no_gradient():
    theirs, mine = both("GRU", 3, 4)
    for layer in (theirs, mine):
        layer.weight_ih_l0.requires_grad_(False)
        layer(random(4, 2, 3))[0].square().sum().backward()
    assert mine.weight_ih_l0.grad is None
    torch.testing.assert_close(theirs.weight_hh_l0.grad, mine.weight_hh_l0.grad)


def test_state_dict_both_ways_and_copies():
    theirs, mine = both("LSTM", 3, 4, num_layers=2, bidirectional=True)
    theirs.load_state_dict(mine.state_dict())
    assert list(theirs.state_dict()) == list(mine.state_dict())
    x = random(5, 2, 3)
    torch.testing.assert_close(copy.deepcopy(mine)(x)[0], theirs(x)[0])
    torch.testing.assert_close(mine.to(torch.float32)(x.float())[0], theirs(x)[0].float())
    assert repr(mine) == repr(theirs)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ours.LSTM(3, 4, num_layers=2, dropout=0.3), "dropout is 0.3; .* put nn.Dropout between layers"),
        (lambda: ours.LSTM(3, 4, proj_size=2), "proj_size is 2; .* take torch.nn.LSTM"),
        (lambda: ours.RNN(3, 4, nonlinearity="relu"), "nonlinearity is 'relu'; our kernels have the tanh"),
        (lambda: ours.GRU(3, 4, dtype=torch.bfloat16), "parameters are torch.bfloat16; .* float32 and float64"),
        (lambda: ours.replace(nn.Sequential(nn.GRU(3, 4), nn.RNN(3, 4, nonlinearity="relu"))), "^1: the nonlinearity"),
    ],
    ids=["dropout", "projection", "relu", "bfloat16", "replace"],
)
def test_what_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_what_does_not_fit_is_told():
    mine = ours.LSTM(3, 4)
    with pytest.raises(RuntimeError, match=r"input_size. Expected 3, got 5"):
        mine(torch.zeros(2, 1, 5))
    with pytest.raises(RuntimeError, match=r"Expected h of size \(1, 2, 4\), got \[1, 3, 4\]"):
        mine(torch.zeros(5, 2, 3), (torch.zeros(1, 3, 4), torch.zeros(1, 2, 4)))
    with pytest.raises(RuntimeError, match="sequence length to be larger than 0"):
        mine(torch.zeros(0, 2, 3))
    with pytest.raises(ValueError, match="does not match weight dtype"):
        mine(torch.zeros(5, 2, 3, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"x is on meta; .* take the layer of torch.nn there"):
        mine(torch.zeros(5, 2, 3, device="meta"))
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(TypeError, match=r"leave this layer out of autocast"):
        mine(torch.zeros(5, 2, 3, dtype=torch.bfloat16))


def test_no_gradient_of_a_gradient():
    _, mine = both("GRU", 3, 4)
    x = random(4, 2, 3).requires_grad_()
    (first,) = torch.autograd.grad(mine(x)[0].sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"the gradient of a gradient is not computed by rnnbench.torch; use the layer"
    ):
        first.sum().backward()


@pytest.mark.parametrize("cell", CELLS)
def test_the_compiler_leaves_a_layer_whole(cell):
    """One graph, in which a layer is one call, forward and back; of any batch size."""
    graphs = []

    def look(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    theirs, mine = both(cell, 3, 4, num_layers=2, batch_first=True)
    compiled = torch.compile(
        mine, fullgraph=True, dynamic=True, backend=aot_autograd(fw_compiler=look, bw_compiler=look)
    )
    for B in (5, 6):
        found, expected = compiled(random(B, 7, 3))[0], theirs(random(B, 7, 3))[0]
        torch.testing.assert_close(found, expected)
        for layer, y in ((theirs, expected), (mine, found)):
            layer.zero_grad()
            y.square().sum().backward()
        for a, b in zip(theirs.parameters(), mine.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    assert len(graphs) == 2
    for graph, name in zip(graphs, ("layer", "layer_backward"), strict=True):
        calls = [str(node.target) for node in graph.graph.nodes if "rnnbench" in str(node.target)]
        assert calls == [f"rnnbench.{name}.default"] * 2
    torch._dynamo.reset()


def test_operators_are_what_pytorch_asks_of_one():
    _, mine = both("LSTM", 3, 4, bidirectional=True)
    states = [random(2, 2, 4, seed=i).requires_grad_() for i in range(2)]
    arguments = (random(5, 2, 3).requires_grad_(), None, *states, *mine.parameters(), "LSTM", False, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.rnnbench.layer.default, arguments, test_utils=tests)


class Tagger(nn.Module):
    """A model as its users write it: an embedding, layers under a name, in a list and twice, and a head."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.encoder = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True)
        self.more = nn.ModuleList([nn.GRU(16, 8, batch_first=True)])
        self.again = self.more[0]
        self.head = nn.Linear(8, 3)

    def forward(self, tokens, lengths):
        x = packing.pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        y, _ = packing.pad_packed_sequence(self.encoder(x)[0], batch_first=True)
        return self.head(self.again(y)[0])


def test_a_model_with_layers_replaced_trains_along_the_same_curve():
    curves = []
    for swap in (False, True):
        torch.manual_seed(0)
        model = Tagger()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        called = []
        model.encoder.register_forward_hook(lambda *_, called=called: called.append(1))
        if swap:
            assert ours.replace(model) is model
            assert type(model.encoder) is ours.LSTM
            assert type(model.embedding) is ours.Embedding
            assert type(model.again) is type(model.more[0]) is ours.GRU
        tokens, lengths = torch.randint(0, 20, (12, 9)), torch.randint(1, 10, (12,)).sort(descending=True).values
        lengths[0] = 9
        targets, losses = tokens % 3, []
        for _ in range(40):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(tokens, lengths).flatten(0, 1), targets.flatten())
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert len(called) == 40
        curves.append(torch.tensor(losses))
    assert curves[0][-1] < 0.6 * curves[0][0]
    torch.testing.assert_close(curves[1], curves[0], rtol=2e-3, atol=1e-4)


class Embedded(nn.Module):
    """An embedding and a layer above it, with what may stand between them."""

    def __init__(self, cell, V, E, H, between=lambda x: x, dtype=torch.float64, **options):
        super().__init__()
        torch.manual_seed(3)
        kinds = {name: options.pop(name) for name in ("padding_idx", "sparse", "scale_grad_by_freq") if name in options}
        self.embedding = nn.Embedding(V, E, dtype=dtype, **kinds)
        self.layer = getattr(nn, cell)(E, H, dtype=dtype, **options)
        self.between = between

    def forward(self, tokens):
        return self.layer(self.between(self.embedding(tokens)))


def embedded(*args, **options):
    """The same with modules of torch.nn and with ours."""
    theirs = Embedded(*args, **options)
    return theirs, ours.replace(copy.deepcopy(theirs))


def tokens_of(V, *shape):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(2))


def learns(model, tokens):
    """Outputs, last states, and gradients of parameters."""
    model.zero_grad()
    y, last = model(tokens)
    y = y.data if isinstance(y, packing.PackedSequence) else y
    last = last if isinstance(last, tuple) else (last,)
    ((y * torch.linspace(-1, 2, y.shape[-1], dtype=y.dtype)).sum() + sum(s.sum() for s in last)).backward()
    return [y, *last, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture
def past(monkeypatch):
    """Of each pass back, whether it gave its gradient to the embedding, and not to its output."""
    found, back = [], ours._layer_backward

    def noted(*inputs, **of):
        found.append(of.get("learns_tokens", False))
        return back(*inputs, **of)

    monkeypatch.setattr(ours, "_layer_backward", noted)
    return found


def assert_learn_alike(models, tokens):
    expected, found = (learns(model, tokens) for model in models)
    assert len(expected) == len(found)
    for i, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert a.shape == b.shape, i
        assert (a - b).abs().max() <= LIMITS[a.dtype] * 10 * (1 + a.abs().max()), i


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_a_layer_learns_tokens(options, cell, dtype, past):
    """Each unique one is projected once, or, where E is small and tokens are many, each row and step."""
    for V, E, H, B, T in ((1, 1, 2, 1, 1), (7, 3, 5, 4, 6), (40, 17, 33, 9, 7), (9000, 2, 64, 30, 40)):
        models = embedded(cell, V, E, H, dtype=dtype, padding_idx=V // 2, **options)
        assert_learn_alike(models, tokens_of(V, B, T))
    assert any(past)
    assert all(past) or models[1].layer.num_layers > 1  # those above it learn no tokens


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("H", "B", "T"), [(40, 24, 12), (512, 2, 3)], ids=["rows", "columns"])
def test_tokens_shared_by_threads(threads, H, B, T):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        theirs, mine = embedded("GRU", 60, 40, H, bidirectional=True)
        assert_learn_alike((theirs, mine), tokens_of(60, T, B))
        first, again = (learns(mine, tokens_of(60, T, B)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    finally:
        torch.set_num_threads(before)


def _packed(x):
    rows = packing.pack_padded_sequence(x, [4, 2, 1], enforce_sorted=True)
    return packing.PackedSequence(x.flatten(0, 1)[: len(rows.data)], rows.batch_sizes)


@pytest.mark.parametrize(
    ("between", "knows"),
    [
        (lambda x: x, True),
        (lambda x: x.transpose(0, 1), True),
        (lambda x: nn.functional.dropout(x, 0.5, training=False), True),
        (lambda x: x.view(x.shape), False),
        (lambda x: x.flip(0), False),
        (lambda x: x.mul_(2), False),
        (lambda x: packing.pack_padded_sequence(x, [4, 2, 1]), False),
    ],
    ids=["nothing", "transpose", "dropout", "view", "flip", "in place", "packed"],
)
def test_what_stands_between(between, knows, past):
    assert_learn_alike(embedded("LSTM", 9, 3, 5, between), tokens_of(9, 4, 3))
    assert past == [knows]


class _Turned(torch.autograd.Function):
    """A view of what it is given, with a way back of its own."""

    @staticmethod
    def forward(ctx, x):
        return x.transpose(0, 1)

    @staticmethod
    def backward(ctx, grad):
        return -3 * grad.transpose(0, 1)


def _without_a_way_back(x):
    with torch.no_grad():
        return x.transpose(0, 1)


def _by_data(x):
    x.data.add_(torch.arange(float(len(x)))[:, None, None])
    return x


def _other_data(x):
    x.data = torch.ones_like(x)
    return x


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.detach_(),
        lambda x: x.detach_().requires_grad_(),
        _without_a_way_back,
        _Turned.apply,
        lambda x: _Turned.apply(x).transpose(0, 1).transpose(0, 1),
        _by_data,
        _other_data,
    ],
    ids=["detach_", "leaf", "no_grad", "function", "function and back", "data", "other data"],
)
@pytest.mark.parametrize("shape", [(4, 3), (1, 1)], ids=["rows", "one"])
def test_what_has_another_way_back_than_the_embeddings(between, shape):
    models = embedded("GRU", 5, 3, 5, between)
    for model in models:
        outputs = []
        model.between = lambda x, to=outputs: to.append(between(x)) or to[-1]
        model.leaves = outputs
    assert_learn_alike(models, tokens_of(5, *shape))
    theirs, mine = (model.leaves[0].grad if model.leaves[0].is_leaf else None for model in models)
    assert (theirs is None) == (mine is None)
    if theirs is not None:
        torch.testing.assert_close(mine, theirs)


def test_an_embedding_without_a_way_back_and_one_that_learns_later():
    def frozen(model, tokens):
        with torch.no_grad():
            x = model.embedding(tokens)
        return model.layer(x)[0]

    def later(model, tokens):
        model.embedding.requires_grad_(False)
        x = model.embedding(tokens)
        model.embedding.requires_grad_(True)
        return model.layer(x)[0]

    for call in (frozen, later):
        mine = embedded("LSTM", 9, 3, 5)[1]
        call(mine, tokens_of(9, 4, 3)).sum().backward()
        assert mine.embedding.weight.grad is None
        assert mine.layer.weight_ih_l0.grad is not None


def test_tokens_that_are_written_to_before_the_layer_is_called():
    theirs, mine = embedded("LSTM", 9, 3, 5)
    found = []
    for model in (theirs, mine):
        tokens = tokens_of(9, 4, 3)
        x = model.embedding(tokens)
        tokens.fill_(1)
        found.append(model.layer(x)[0])
    torch.testing.assert_close(*found)


def test_weights_that_are_computed_at_random():
    class Dropped(nn.Module):
        def forward(self, weight):
            return nn.functional.dropout(weight)

    mine, found = embedded("GRU", 9, 3, 5)[1], []
    nn.utils.parametrize.register_parametrization(mine.embedding, "weight", Dropped())
    x = mine.embedding(tokens_of(9, 4, 3))
    mine.layer(x)[0].sum().backward(retain_graph=True)
    weight = mine.embedding.parametrizations.weight.original
    found.append(weight.grad.clone())
    weight.grad = None
    x.retain_grad()
    mine.layer(x)[0].sum().backward()
    torch.testing.assert_close(weight.grad, found[0])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_hooks_of_an_embedding_below_a_layer_that_is_time_first():
    found = []
    for model in embedded("GRU", 9, 3, 5, lambda x: x.transpose(0, 1)):
        model.embedding.register_full_backward_hook(lambda module, to, of: found.append(of[0]))
        learns(model, tokens_of(9, 4, 3))
    torch.testing.assert_close(*found)


def test_as_many_threads_back_as_forward():
    before, found = torch.get_num_threads(), []
    try:
        for model in embedded("LSTM", 60, 16, 64):
            torch.set_num_threads(2)
            y = model(tokens_of(60, 20, 64))[0].sum()
            torch.set_num_threads(1)
            y.backward()
            found.append([p.grad for p in model.parameters()])
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_forward_mode_is_refused_and_vmap_calls_one_by_one():
    mine, tokens = embedded("GRU", 9, 3, 5)[1], tokens_of(9, 2, 4, 3)
    with torch.no_grad():
        found = torch.func.vmap(lambda rows: mine(rows)[0])(tokens)
        torch.testing.assert_close(found, torch.stack([mine(rows)[0] for rows in tokens]))
        with torch.autograd.forward_ad.dual_level():
            x = torch.autograd.forward_ad.make_dual(mine.embedding(tokens[0]), torch.ones(4, 3, 3).double())
            with pytest.raises(NotImplementedError, match="forward mode is not computed"):
                mine.layer(x)


def test_packed_tokens(past):
    class Packed(Embedded):
        def forward(self, tokens):
            rows = packing.pack_padded_sequence(tokens, [4, 2, 1])
            return self.layer(packing.PackedSequence(self.embedding(rows.data), *rows[1:]))

    torch.manual_seed(0)
    theirs = Packed("GRU", 9, 3, 5, bidirectional=True)
    assert_learn_alike((theirs, ours.replace(copy.deepcopy(theirs))), tokens_of(9, 4, 3))
    assert past == [True]


def _output(model, tokens):
    x = model.embedding(tokens)
    return x, model.layer(x)[0].square().sum()


@pytest.mark.parametrize("ask", ["grad", "grad of both", "inputs", "hook", "retain", "twice"])
def test_whoever_asks_for_the_gradient_of_an_embeddings_output_gets_it(ask):
    """Even after the layer has been called."""
    found = []
    for model in embedded("GRU", 9, 3, 5):
        x, loss = _output(model, tokens_of(9, 4, 3))
        seen = []
        if ask == "grad":
            seen += torch.autograd.grad(loss, x)
        elif ask == "grad of both":
            seen += torch.autograd.grad(loss, (x, model.embedding.weight))
        elif ask == "inputs":
            loss.backward(inputs=[model.embedding.weight])
        elif ask == "hook":
            x.register_hook(lambda g: g * 2)
            loss.backward()
        elif ask == "retain":
            x.retain_grad()
            loss.backward()
            seen.append(x.grad)
        else:
            (loss + x.sum()).backward()
        found.append([*seen, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_frozen_embeddings_and_those_without_a_way_back(past):
    theirs, mine = embedded("LSTM", 9, 3, 5)
    tokens = tokens_of(9, 4, 3)
    for model in (theirs, mine):
        model.embedding.weight.requires_grad_(False)
    assert_learn_alike((theirs, mine), tokens)
    assert past == [False]
    assert mine.embedding.weight.grad is None
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(theirs(tokens)[0], mine(tokens)[0])


@pytest.mark.parametrize("options", [{"sparse": True}, {"scale_grad_by_freq": True}])
def test_embeddings_whose_gradients_are_of_another_kind_are_those_of_torch(options, past):
    theirs, mine = embedded("GRU", 9, 3, 5, **options)
    tokens = tokens_of(9, 4, 3)
    for model in (theirs, mine):
        _output(model, tokens)[1].backward()
    a, b = (model.embedding.weight.grad for model in (theirs, mine))
    assert a.layout == b.layout
    torch.testing.assert_close(a.to_dense(), b.to_dense())
    assert past == [False]


def test_a_token_that_is_not_there():
    _, mine = embedded("GRU", 9, 3, 5)
    for token in (9, -1):
        tokens = torch.tensor([[1, 2], [token, 3]])
        with pytest.raises(IndexError, match=f"^token {token} is not in the vocabulary of the embedding: 0 to 8$"):
            mine(tokens)
        good = torch.ones(2, 2, dtype=torch.int64)
        x = mine.embedding(good)
        good.numpy()[:] = tokens.numpy()  # past PyTorch's count of what is written
        with pytest.raises(IndexError, match=f"^token {token} is not in the vocabulary"):
            mine.layer(x)
        assert_learn_alike(embedded("GRU", 9, 3, 5), tokens_of(9, 4, 3))


def test_no_gradient_of_a_gradient_of_tokens():
    _, mine = embedded("GRU", 9, 3, 5)
    loss = mine(tokens_of(9, 4, 3))[0].sum()
    (first,) = torch.autograd.grad(loss, mine.embedding.weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"the gradient of a gradient is not computed"):
        first.sum().backward()


def test_the_compiler_takes_embedding_and_layer_in_one_graph():
    theirs, mine = embedded("LSTM", 9, 3, 5)
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    tokens = tokens_of(9, 4, 3)
    for model in (theirs, compiled):
        model(tokens)[0].square().sum().backward()
    for a, b in zip(theirs.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    torch._dynamo.reset()


def test_outputs_of_an_embedding_are_saved_without_their_weights(tmp_path):
    _, mine = embedded("GRU", 900, 3, 5)
    x = mine.embedding(tokens_of(900, 1, 1))
    torch.save(x, tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 900 * 3 * 8
    torch.testing.assert_close(torch.load(tmp_path / "x"), x)
    del x
    assert not ours._OUTPUTS


def test_a_single_layer_is_replaced_and_classes_of_others_are_left_alone():
    class Mine(nn.GRU):
        pass

    layer, other = nn.GRU(3, 4), Mine(3, 4)
    assert type(ours.replace(layer)) is ours.GRU
    assert type(ours.replace(other)) is Mine


def test_importing_rnnbench_imports_no_torch():
    code = "import rnnbench, sys; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
