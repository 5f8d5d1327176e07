"""The fused attention stacks compute what the packages compute; what a caller can get wrong has its message."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from miram import kinds
from miram.models.attention import build_stack, favor, pinv

pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch's own, on switching oneDNN off

OPTIONS = {
    "linformer": {"rank": 24},
    "performer": {"redraw_interval": 0},
    "nystrom": {"landmarks": 16, "pinv_iterations": 6, "pinv_init": "batch", "residual_kernel": 33},
}
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def stack(kind, backend="fused", *, dim=32, depth=2, heads=4, tokens, dtype=torch.float64, **options):
    options = OPTIONS.get(kind, {}) | options
    built = build_stack(kind, backend=backend, dim=dim, depth=depth, heads=heads, tokens=tokens, **options)
    return built.to(dtype)


def pair(kind, **settings_):
    package, fused = stack(kind, "package", **settings_), stack(kind, "fused", **settings_)
    fused.load_state_dict(package.state_dict())
    return package, fused


def results(model, x, weights):
    """The output, and the gradients of its weighted sum with respect to the input and every parameter."""
    x = x.clone().requires_grad_()
    output = model(x)
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad((output * weights).sum(), (x, *parameters))
    return dict(zip(("output", "input", *names), (output.detach(), *gradients), strict=True))


def assert_same(package, fused, x):
    weights = torch.randn_like(x)
    with torch.backends.mkldnn.flags(enabled=False):  # oneDNN's gradient of the package's convolution can be wrong
        expected = results(package, x, weights)
    for name, value in results(fused, x, weights).items():
        error = (value - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1)
        assert error <= TOLERANCE[x.dtype], f"{name}: {error:.1e}"


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tokens", [50, 197, 785])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("linformer", {}),
        ("performer", {}),
        *(("nystrom", {"landmarks": count}) for count in (1, 7, 37, 50)),
    ],
    ids=str,
)
def test_fused_equals_package(kind, options, tokens, dtype):
    torch.manual_seed(1)
    package, fused = pair(kind, tokens=tokens, dtype=dtype, **options)
    assert_same(package, fused, torch.randn(2, tokens, 32, dtype=dtype))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(list(OPTIONS)))
def test_fused_equals_package_at_any_size(data, kind):
    heads, width = data.draw(st.sampled_from([1, 2, 3])), data.draw(st.integers(3, 6))
    batch, tokens = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 40))
    options = {
        "linformer": {"rank": data.draw(st.integers(1, 20))},
        "performer": {},
        "nystrom": {
            "landmarks": data.draw(st.integers(1, tokens)),
            "pinv_iterations": data.draw(st.integers(1, 6)),
            "residual_kernel": data.draw(st.sampled_from([1, 3, 9, 33])),
        },
    }[kind]
    torch.manual_seed(data.draw(st.integers(0, 2**16)))
    package, fused = pair(kind, dim=heads * width, heads=heads, tokens=tokens, **options)
    x = torch.randn(batch, tokens, heads * width, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(favor, "CPU_BLOCK", data.draw(st.integers(1, 2000)))
        patch.setattr(pinv, "CPU_GROUP", data.draw(st.integers(1, 2000)))
        assert_same(package, fused, x)


@pytest.mark.parametrize("kind", OPTIONS)
def test_weights_move_both_ways(kind):
    package, fused = stack(kind, "package", tokens=50), stack(kind, tokens=50)
    package.load_state_dict(fused.state_dict())
    x = torch.randn(2, 50, 32, dtype=torch.float64)
    torch.testing.assert_close(package(x), fused(x))
    torch.testing.assert_close(copy.deepcopy(package)(x), fused(x))


@pytest.mark.parametrize("tokens", [46, 61, 196, 211, 256])  # 1 mod 15
@pytest.mark.parametrize("kernel", [33, 35, 65])
def test_convolution_gradient_avoids_the_onednn_fault(tokens, kernel):
    torch.manual_seed(0)
    fused = stack("nystrom", depth=1, tokens=tokens, landmarks=4, residual_kernel=kernel, dtype=torch.float32)
    x, weights = torch.randn(2, 2, tokens, 32)
    name = "layers.0.0.fn.res_conv.weight"
    single = results(fused, x, weights)[name]
    double = results(fused.double(), x.double(), weights.double())[name]
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4 * double.abs().max().item())


@pytest.mark.parametrize(("kind", "init"), [("linformer", None), ("performer", None), ("nystrom", "matrix")])
def test_output_does_not_depend_on_batch_neighbours(kind, init):
    assert neighbour_effect(kind, **({"pinv_init": init} if init else {})) < 1e-13


def test_the_packages_start_value_depends_on_batch_neighbours():
    assert neighbour_effect("nystrom", pinv_init="batch") > 1e-6


def neighbour_effect(kind, **options):
    torch.manual_seed(0)
    model = stack(kind, tokens=50, **options)
    one, others = torch.randn(1, 50, 32, dtype=torch.float64), 3 * torch.randn(3, 50, 32, dtype=torch.float64)
    return (model(torch.cat([one, others]))[:1] - model(one)).abs().max()


def projections(model):
    return torch.stack([value for name, value in model.state_dict().items() if name.endswith("projection_matrix")])


def test_redraw_follows_the_package():
    package, fused = pair("performer", tokens=9, redraw_interval=2)
    x, changes = torch.randn(1, 9, 32, dtype=torch.float64), []
    for step in range(7):
        before = projections(fused)
        for model in (package, fused):
            torch.manual_seed(step)
            model.eval()(x)
            model.train()(x)
        torch.testing.assert_close(projections(fused), projections(package))
        changes.append(not torch.equal(before, projections(fused)))
    assert changes == [False, False, True, False, False, True, False]


def test_redraw_goes_on_from_a_checkpoint():
    x = torch.randn(1, 9, 32, dtype=torch.float64)
    first, second = (stack("performer", tokens=9, redraw_interval=3) for _ in range(2))
    first(x), first(x)
    second.load_state_dict(first.state_dict())
    for model in (first, second):
        torch.manual_seed(3)
        model(x), model(x)
    assert torch.equal(projections(first), projections(second))
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("backend", ["fused", "package"])
def test_interval_zero_never_redraws(backend):
    model = stack("performer", backend, tokens=9)
    before = projections(model)
    for _ in range(3):
        model(torch.randn(1, 9, 32, dtype=torch.float64))
    assert torch.equal(before, projections(model))


def test_projection_rows_are_orthogonal_within_a_block():
    matrix = projections(stack("performer", dim=64, heads=2, tokens=9))[0]
    assert matrix.shape == (110, 32)  # int(32 ln 32)
    directions = functional.normalize(matrix[:32], dim=1)
    torch.testing.assert_close((directions @ directions.T).float(), torch.eye(32))


@pytest.mark.parametrize("kind", kinds.ATTENTION)
def test_half_precision_stays_close(kind):
    torch.manual_seed(0)
    model = stack(kind, None if kind == "full" else "fused", tokens=50, dtype=torch.float32)
    x = torch.randn(2, 50, 32)
    exact = results(model, x, torch.ones_like(x))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = results(model, x, torch.ones_like(x))
    for name, value in exact.items():
        assert rounded[name].dtype == torch.float32
        assert (rounded[name] - value).abs().max() < 0.1 * value.abs().max().clamp(min=1), name


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("cosformer", {}, "'cosformer' is not one of 'full', 'linformer', 'performer', 'nystrom'"),
        ("linformer", {"backend": "fast"}, "backend 'fast' is not one of 'fused', 'package'"),
        ("performer", {"backend": None}, "backend None is not one of"),
        ("full", {"backend": "fused"}, "full attention has no backends"),
        ("nystrom", {"pinv_init": "zero"}, "pinv_init 'zero' is not one of 'matrix', 'batch'"),
        ("nystrom", {"backend": "package", "pinv_init": "matrix"}, "'package' has only 'batch'"),
        ("nystrom", {"landmarks": 51}, "51 landmarks for 50 tokens"),
        ("nystrom", {"landmarks": 0}, "0 landmarks for 50 tokens"),
        ("nystrom", {"residual_kernel": 32}, "residual_kernel 32 is even"),
        ("linformer", {"heads": 5}, "width 32 is not divisible by 5 heads"),
        ("linformer", {"rank": 0}, "rank 0 is less than 1"),
        ("performer", {"redraw_interval": -1}, "redraw_interval -1 is negative"),
        ("performer", {"heads": 32}, "heads of width 1"),
    ],
)
def test_impossible_values_are_refused(kind, change, message):
    backend = change.pop("backend", None if kind == "full" else "fused")
    with pytest.raises(ValueError, match=message):
        stack(kind, backend, tokens=50, **change)


@pytest.mark.parametrize("backend", ["fused", "package"])
def test_linformer_refuses_other_lengths(backend):
    model = stack("linformer", backend, tokens=50)
    with pytest.raises(ValueError, match="49 tokens, but this Linformer projects exactly 50"):
        model(torch.randn(1, 49, 32, dtype=torch.float64))
