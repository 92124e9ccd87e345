"""MoClip against a loop of its equations, against its two parents at 180 degrees, and alone."""

import copy
import math

import pytest
import torch
from adam_atan2_pytorch import AdamAtan2
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lrmoclip.core import angles, optim
from lrmoclip.core.optim import MoClip
from tests.conftest import Allocations
from tests.reference.moclip_loop import MoClipLoop

ANGLES = [10, 20, 85, 95, 180]  # degrees
SHAPES = [(3, 4), (5,), (1,), (2, 3, 2), ()]
examples = settings(max_examples=60, deadline=None, derandomize=True)


def tensors(seed, dtype=torch.float64, shapes=SHAPES):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes]


def run(optimizer, params, gradients):
    """Set each list of gradients in turn and step; the parameters after."""
    for grads in gradients:
        for p, g in zip(params, grads, strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()
    return [p.detach().clone() for p in params]


def equal(xs, ys):
    return len(xs) == len(ys) and all(torch.equal(x, y) for x, y in zip(xs, ys, strict=True))


def angle(x, y):
    """In degrees, by the formula that is accurate from 0 to 180."""
    x, y = x / x.norm(), y / y.norm()
    return 2 * math.degrees(math.atan2((x - y).norm(), (x + y).norm()))


def pair_at(seed, degrees, n=6, length=1.0):
    """g and m, `degrees` apart, and the unit vector on g's side of m in their plane."""
    m, side = tensors(seed, shapes=[(n,), (n,)])
    side -= (side @ m) / (m @ m) * m
    side /= side.norm()
    theta = math.radians(degrees)
    return length * (math.cos(theta) * m / m.norm() + math.sin(theta) * side), m, side


def clipped(g, m, cap, **settings):
    """What the step takes for g after the momentum m, and the angle it saw between the two."""
    p = torch.zeros_like(g)  # with a first beta of 0 the first moment is the gradient taken
    opt = MoClip([p], lr=0.0, betas=(0.0, 0.5), max_angle=cap, **settings)
    run(opt, [p], [[m], [g]])
    return opt.state[p]["exp_avg"], opt.last_angles[0][0]


@examples
@given(
    seed=st.integers(0, 2**20),
    max_angle=st.sampled_from([20.0, 60.0, 90.0, 120.0, 180.0]),
    step=st.sampled_from(["atan2", "adam"]),
    weight_decay=st.sampled_from([0.0, 0.1]),
    betas=st.sampled_from([(0.9, 0.99), (0.0, 0.5)]),
    foreach=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_moclip_is_the_loop_to_the_bit(seed, max_angle, step, weight_decay, betas, foreach, dtype):
    settings = {
        "lr": 0.03,
        "betas": betas,
        "max_angle": max_angle,
        "weight_decay": weight_decay,
        "step": step,
    }
    ours, theirs = tensors(seed, dtype), tensors(seed, dtype)
    gradients = [tensors(seed + k, dtype) for k in range(1, 7)]
    gradients[2] = [torch.zeros_like(g) for g in gradients[2]]
    gradients[4] = [-g for g in gradients[3]]

    loop = MoClipLoop(theirs, **settings)
    for grads in gradients:
        loop.step(grads)

    assert equal(run(MoClip(ours, foreach=foreach, **settings), ours, gradients), theirs)


@pytest.mark.parametrize("max_angle", [60, 180])
def test_tensors_above_a_chunk_are_the_loop_to_the_bit(max_angle):
    shapes = [(2**17 + 1,), (3, 50_001), (40,), (2**18,)]
    ours, theirs = tensors(0, shapes=shapes), tensors(0, shapes=shapes)
    gradients = [tensors(k, shapes=shapes) for k in range(1, 4)]
    loop = MoClipLoop(theirs, lr=0.03, max_angle=max_angle, weight_decay=0.1)
    for grads in gradients:
        loop.step(grads)

    got = run(MoClip(ours, 0.03, max_angle=max_angle, weight_decay=0.1), ours, gradients)

    assert equal(got, theirs)


def test_more_threads_change_no_more_than_last_bits():
    shapes = [(3, 100_003), (50,)]
    one, two = tensors(0, shapes=shapes), tensors(0, shapes=shapes)
    gradients = [tensors(k, shapes=shapes) for k in range(1, 4)]
    want = run(MoClip(one, 0.03, max_angle=60), one, gradients)

    torch.set_num_threads(2)
    try:
        got = run(MoClip(two, 0.03, max_angle=60), two, gradients)
    finally:
        torch.set_num_threads(1)

    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_follows_the_loop_in_float64(dtype):
    shapes, tolerance = [(200, 1000), (30,)], {torch.float32: 1e-6, torch.bfloat16: 0.02}[dtype]
    ours = tensors(0, dtype, shapes)
    gradients = [tensors(k, dtype, shapes) for k in range(1, 6)]
    theirs = [p.double() for p in ours]
    loop = MoClipLoop(theirs, lr=0.03, max_angle=75)
    for grads in gradients:
        loop.step([g.double() for g in grads])

    got = run(MoClip(ours, 0.03, max_angle=75), ours, gradients)

    for x, y in zip(got, theirs, strict=True):
        assert x.dtype == dtype
        torch.testing.assert_close(x.double(), y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 1),
        lambda x: torch.stack([x, x], dim=-1)[..., 0],  # neither dense nor contiguous
    ],
)
@pytest.mark.parametrize("alike", [True, False])
def test_how_a_tensor_lies_in_memory_changes_nothing_that_matters(lay_out, alike):
    shapes = [(32, 16, 20, 20)]  # above a chunk
    plain, odd = tensors(0, shapes=shapes), [lay_out(x) for x in tensors(0, shapes=shapes)]
    gradients = [tensors(k, shapes=shapes) for k in range(1, 4)]
    if lay_out(plain[0]).shape != plain[0].shape:
        gradients = [[x.transpose(0, 1).contiguous() for x in gs] for gs in gradients]
        plain = [x.transpose(0, 1).contiguous() for x in plain]
    want = run(MoClip(plain, 0.1, max_angle=60), plain, gradients)

    opt = MoClip(odd, 0.1, max_angle=60)
    for grads in gradients:
        for p, g in zip(odd, grads, strict=True):
            p.grad = torch.empty_like(p).copy_(g) if alike else g.clone()
        opt.step()

    torch.testing.assert_close(odd, want, rtol=1e-12, atol=1e-15)


def test_where_a_gradient_begins_in_memory_changes_no_bit():
    runs = []
    for offset in range(4):
        [p], gradients = tensors(0, torch.float32, [(5000,)]), []
        for k in range(1, 5):
            [g] = tensors(k, torch.float32, [(5000,)])
            gradients.append(torch.zeros(5016)[offset : offset + 5000].copy_(g))
        opt = MoClip([p], 0.1, max_angle=60)
        for p.grad in gradients:
            opt.step()
        runs.append([p])

    assert all(equal(runs[0], other) for other in runs[1:])


@pytest.mark.parametrize(
    ("dtype", "maximize", "chunks"),
    [(torch.float32, False, 2), (torch.float32, True, 3), (torch.bfloat16, False, 6)],
)
def test_a_step_needs_no_more_memory_than_a_few_chunks(dtype, maximize, chunks):
    shapes = [(1000, 1000), *[(300, 300)] * 6, *[(100,)] * 10]
    params = tensors(0, dtype, shapes)
    opt = MoClip(params, 0.1, max_angle=60, maximize=maximize)
    run(opt, params, [tensors(1, dtype, shapes)])
    for p, g in zip(params, tensors(2, dtype, shapes), strict=True):
        p.grad = g

    with Allocations() as seen:
        opt.step()

    assert opt.angle_statistics()[0]["clip_rate"] == 1
    chunk = 4 * optim.CHUNK
    assert chunk < seen.peak < chunks * chunk + 10_000


@pytest.mark.parametrize(("a", "b"), [(4 / math.pi, 1.0), (1.27, 0.5)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_at_180_degrees_it_is_adam_atan2(a, b, weight_decay):
    ours, theirs = tensors(0), tensors(0)
    gradients = [tensors(k) for k in range(1, 20)]
    same = {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": weight_decay, "a": a, "b": b}

    got = run(MoClip(ours, max_angle=180, **same), ours, gradients)

    want = run(AdamAtan2(theirs, **same), theirs, gradients)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("maximize", [False, True])
def test_at_180_degrees_with_the_adam_step_it_is_adamw(weight_decay, maximize):
    ours, theirs = tensors(0), tensors(0)
    gradients = [tensors(k) for k in range(1, 20)]
    same = {
        "lr": 0.02,
        "betas": (0.8, 0.95),
        "eps": 1e-3,
        "weight_decay": weight_decay,
        "maximize": maximize,
    }

    got = run(MoClip(ours, max_angle=180, step="adam", **same), ours, gradients)

    want = run(torch.optim.AdamW(theirs, **same), theirs, gradients)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


@examples
@given(
    st.integers(0, 2**20),
    st.floats(1, 179.9),
    st.floats(5, 175),
    st.integers(2, 9),
    st.floats(-6, 6).map(lambda x: 10**x),
)
def test_a_gradient_beyond_the_cap_is_turned_to_it_in_its_plane(seed, degrees, cap, n, length):
    g, m, side = pair_at(seed, degrees, n, length)

    turned, before = clipped(g, m, cap)

    assert before == pytest.approx(degrees, abs=1e-6)
    assert angle(turned, m) == pytest.approx(min(degrees, cap), abs=1e-6)
    assert turned.norm().item() == pytest.approx(length, rel=1e-12)
    assert turned @ side > 0
    in_plane = (turned @ m) / (m @ m) * m + (turned @ side) * side
    torch.testing.assert_close(turned, in_plane, rtol=0, atol=1e-9 * length)
    if degrees <= cap - 1e-6:
        assert torch.equal(turned, g)


@pytest.mark.parametrize(
    ("dtype", "degrees"), [(torch.float32, 1e-3), (torch.bfloat16, 0.5), (torch.float16, 0.1)]
)
def test_the_cap_holds_in_lower_precision(dtype, degrees):
    for seed, theta in enumerate([30.0, 76.0, 95.0, 140.0, 160.0, 179.0]):
        g, m, _ = pair_at(seed, theta, n=200)
        g, m = g.to(dtype), m.to(dtype)

        turned, _ = clipped(g, m, 75.0, state_dtype=dtype)

        assert turned.dtype == dtype
        assert angle(turned.double(), m.double()) == pytest.approx(min(theta, 75), abs=degrees)
        assert turned.double().norm() == pytest.approx(1, rel=1e-5 + torch.finfo(dtype).eps)


def test_the_momentum_is_the_one_before_the_step():
    p = torch.zeros(2, dtype=torch.float64)
    east, north = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    opt = MoClip([p], lr=1.0, betas=(0.5, 0.5), max_angle=30)

    run(opt, [p], [[east], [north]])

    assert opt.last_angles[0] == pytest.approx([90])
    turned = torch.tensor([math.cos(math.pi / 6), 0.5], dtype=torch.float64)
    torch.testing.assert_close(opt.state[p]["exp_avg"], 0.25 * east + 0.5 * turned)
    torch.testing.assert_close(opt.state[p]["exp_avg_sq"], 0.25 * east + 0.5 * turned**2)


def test_an_antiparallel_gradient_is_left_as_it_is():
    m = tensors(0, shapes=[(6,)])[0]

    kept, before = clipped(-3 * m, m, 60.0)

    assert torch.equal(kept, -3 * m)
    assert before == pytest.approx(180, abs=1e-5)


def test_a_tensor_of_one_element_can_reverse():
    p = torch.zeros(1)
    opt = MoClip([p], lr=0.1, max_angle=30)

    run(opt, [p], [[torch.ones(1)]] * 5)
    assert p < -0.4
    run(opt, [p], [[-torch.ones(1)]] * 60)
    assert p > 0


def test_nearly_antiparallel_is_turned():
    g, m, _ = pair_at(1, 179.99)

    turned, _ = clipped(g, m, 60.0)

    assert angle(turned, m) == pytest.approx(60, abs=1e-6)
    assert turned.norm().item() == pytest.approx(g.norm().item(), rel=1e-12)


def test_the_first_gradient_and_a_zero_gradient_are_not_turned():
    g, zero = tensors(0, shapes=[(6,)])[0], torch.zeros(6, dtype=torch.float64)

    for gradient, m in ((g, zero), (zero, g), (zero, zero)):
        kept, before = clipped(gradient, m, 1.0)

        assert torch.equal(kept, gradient)
        assert math.isnan(before)


def test_a_zero_gradient_lets_the_momentum_decay():
    [p] = tensors(0, shapes=[(6,)])
    opt = MoClip([p], lr=0.1, max_angle=30, betas=(0.5, 0.5))
    [g] = tensors(1, shapes=[(6,)])

    run(opt, [p], [[g], [torch.zeros_like(g)]])

    torch.testing.assert_close(opt.state[p]["exp_avg"], g / 4)


def test_a_nan_turns_the_cap_of_its_tensor_off_for_good_and_is_counted():
    params = tensors(0, shapes=[(6,)] * 3)
    opt = MoClip(params, 0.1, max_angle=1)
    gradients = [tensors(k, shapes=[(6,)] * 3) for k in range(1, 5)]
    gradients[1][0][2] = math.nan
    gradients[2][1][:] = 0
    counts = []
    for grads in gradients:
        run(opt, params, [grads])
        counts.append([opt.angle_statistics()[0][key] for key in ("tensors", "not_finite")])

    assert counts == [[0, 0], [2, 1], [1, 1], [2, 1]]  # at first, and of a zero, there is no angle


def test_an_overflow_in_a_squared_norm_is_counted_as_not_finite():
    [p] = tensors(0, torch.float32, [(6,)])
    opt = MoClip([p], 0.1, max_angle=30)

    run(opt, [p], [[torch.full((6,), 1e19)]] * 2)

    assert opt.angle_statistics()[0]["not_finite"] == 1
    assert p.isfinite().all()


@pytest.mark.parametrize("max_angle", [30, 180])
def test_a_nan_stays_in_its_coordinate(max_angle):
    for step in ("atan2", "adam"):
        [p] = tensors(0, shapes=[(6,)])
        gradients = [tensors(k, shapes=[(6,)]) for k in range(1, 5)]
        gradients[1][0][2] = math.nan

        [after] = run(MoClip([p], 0.1, max_angle=max_angle, step=step), [p], gradients)

        assert after.isnan().tolist() == [False, False, True, False, False, False]


def test_an_infinite_gradient_makes_its_coordinate_nan_as_in_adamw():
    gradients = [tensors(k, shapes=[(6,)]) for k in range(1, 4)]
    gradients[1][0][2] = math.inf
    only_third = [False, False, True, False, False, False]

    for make in (
        torch.optim.AdamW,
        lambda params: MoClip(params, 0.1, max_angle=30, step="adam"),
    ):
        [p] = tensors(0, shapes=[(6,)])
        [after] = run(make([p]), [p], gradients[:2])
        assert after.isnan().tolist() == only_third

    [p] = tensors(0, shapes=[(6,)])
    opt = MoClip([p], 0.1, max_angle=30)
    [after] = run(opt, [p], gradients[:2])
    assert after.isfinite().all()  # atan2(inf, inf) = pi / 4
    [after] = run(opt, [p], gradients[2:])
    assert after.isnan().tolist() == only_third


@examples
@given(st.integers(0, 2**20), st.floats(-12, 12), st.sampled_from([30.0, 90.0, 180.0]))
def test_no_coordinate_moves_further_than_the_bound(seed, exponent, max_angle):
    params = tensors(seed)
    opt = MoClip(params, lr=0.1, max_angle=max_angle, weight_decay=0.5, a=0.7)
    bound = 0.1 * 0.7 * math.pi / 2 * (1 + 1e-12)

    for k in range(1, 6):
        decayed = [p * (1 - 0.1 * 0.5) for p in params]
        after = run(opt, params, [[g * 10 ** (exponent * (k % 3)) for g in tensors(seed + k)]])
        for x, y in zip(after, decayed, strict=True):
            assert ((x - y).abs() <= bound + 1e-15).all()


@examples
@given(
    st.integers(0, 2**20),
    st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    st.floats(-4, -1).map(lambda x: 10**x),
)
def test_what_is_stored_moves_half_a_step_of_its_grid_further_at_most(seed, dtype, lr):
    params = tensors(seed, dtype)
    opt = MoClip(params, lr=lr, max_angle=90, state_dtype=torch.float32)

    for k in range(1, 4):
        before = [p.double() for p in params]
        after = run(opt, params, [tensors(seed + k, dtype)])
        for x, y in zip(after, before, strict=True):
            step = torch.finfo(dtype).eps * torch.maximum(x.double().abs(), y.abs())
            bound = 2 * lr * (1 + 1e-5) + step / 2 + torch.finfo(dtype).tiny
            assert ((x.double() - y).abs() <= bound).all()


@pytest.mark.parametrize("size", [1e-6, 3e2, 6e4])
def test_the_moments_of_a_float16_parameter_neither_overflow_nor_underflow(size):
    signs = torch.tensor([1.0, -1.0, 1.0])
    low, high = torch.zeros(3, dtype=torch.float16), torch.zeros(3)
    gradients = [[(size * signs).half()]] * 20

    run(opt := MoClip([low], 0.1), [low], gradients)

    run(MoClip([high], 0.1), [high], [[g.float() for g in grads] for grads in gradients])
    assert opt.state[low]["exp_avg"].dtype == opt.state[low]["exp_avg_sq"].dtype == torch.float32
    torch.testing.assert_close(low.float(), high, rtol=2**-8, atol=0)


def test_a_steady_gradient_moves_by_the_learning_rate():
    p = torch.zeros(3, dtype=torch.float64)
    g = torch.tensor([1e-6, -2.0, 1e9], dtype=torch.float64)

    [after] = run(MoClip([p], lr=0.1), [p], [[g]] * 3)

    torch.testing.assert_close(after, -0.3 * g.sign())


def test_a_float32_gradient_that_underflows_in_v_moves_the_full_bound():
    p = torch.zeros(2)

    run(MoClip([p], lr=0.1), [p], [[torch.tensor([1e-24, -1e-24])]])

    torch.testing.assert_close(p, torch.tensor([-0.2, 0.2]))


@examples
@given(st.integers(0, 2**20), st.integers(-40, 40), st.sampled_from([30.0, 90.0, 180.0]))
def test_a_rescaled_loss_takes_the_same_steps(seed, exponent, max_angle):
    gradients = [tensors(seed + k) for k in range(1, 6)]
    rescaled = [[g * 2.0**exponent for g in grads] for grads in gradients]
    ours, theirs = tensors(seed), tensors(seed)

    want = run(MoClip(ours, 0.1, max_angle=max_angle), ours, gradients)

    assert equal(run(MoClip(theirs, 0.1, max_angle=max_angle), theirs, rescaled), want)


@pytest.mark.parametrize(
    ("dtype", "state_dtype"),
    [
        (torch.float64, None),
        (torch.float32, None),
        (torch.bfloat16, None),
        (torch.bfloat16, torch.float32),
    ],
)
def test_a_run_saved_as_safetensors_continues_to_the_same_bits(dtype, state_dtype, tmp_path):
    settings = {"lr": 0.1, "max_angle": 60, "weight_decay": 0.1, "state_dtype": state_dtype}
    gradients = [tensors(k, dtype) for k in range(1, 9)]
    whole, first = tensors(0, dtype), tensors(0, dtype)
    want = run(MoClip(whole, **settings), whole, gradients)

    opt = MoClip(first, **settings)
    run(opt, first, gradients[:4])
    entries = opt.state_dict()["state"]
    flat = {f"{i}.{key}": x for i, entry in entries.items() for key, x in entry.items()}
    save_file(flat, tmp_path / "state.safetensors")

    second = [p.clone() for p in first]
    resumed = MoClip(second, **settings)
    saved = {}
    for name, x in load_file(tmp_path / "state.safetensors").items():
        i, key = name.split(".")
        saved.setdefault(int(i), {})[key] = x
    resumed.load_state_dict({"state": saved, "param_groups": resumed.state_dict()["param_groups"]})
    assert resumed.state[second[0]]["exp_avg"].dtype == (state_dtype or dtype)
    assert equal(run(resumed, second, gradients[4:]), want)


def test_loading_restores_the_settings_and_takes_copies():
    params = tensors(0)
    opt = MoClip(params, 0.1, max_angle=60, betas=(0.5, 0.6))
    run(opt, params, [tensors(1)])
    before = copy.deepcopy(opt.state_dict()["state"])

    other = MoClip(tensors(0), 99.0)
    other.load_state_dict(opt.state_dict())
    run(other, other.param_groups[0]["params"], [tensors(2)])

    assert other.param_groups[0]["max_angle"] == 60
    assert other.param_groups[0]["betas"] == (0.5, 0.6)
    torch.testing.assert_close(opt.state_dict()["state"], before, rtol=0, atol=0)


def test_a_hook_that_changes_what_is_loaded_is_heard():
    params = tensors(0)
    opt = MoClip(params, 0.1)
    run(opt, params, [tensors(1)])

    def forget(_, state_dict):
        return {**state_dict, "state": {}}

    opt.register_load_state_dict_pre_hook(forget)
    opt.load_state_dict(opt.state_dict())

    assert not opt.state


def test_a_copy_steps_like_the_original():
    params = tensors(0)
    opt = MoClip(params, 0.1, max_angle=60)
    run(opt, params, [tensors(1), tensors(2)])

    copied_params, copied = copy.deepcopy((params, opt))

    assert equal(run(copied, copied_params, [tensors(3)]), run(opt, params, [tensors(3)]))
    assert copied.last_angles == opt.last_angles


def test_groups_keep_their_own_settings():
    ours, theirs = tensors(0), tensors(0)
    gradients = [tensors(k) for k in range(1, 8)]
    loose = {"max_angle": 180.0, "lr": 0.01, "step": "adam", "betas": (0.5, 0.9)}

    opt = MoClip([{"params": ours[:2]}, {"params": ours[2:], **loose}], lr=0.1, max_angle=40)
    got = run(opt, ours, gradients)

    run(MoClip(theirs[:2], lr=0.1, max_angle=40), theirs[:2], [g[:2] for g in gradients])
    run(MoClip(theirs[2:], **loose), theirs[2:], [g[2:] for g in gradients])
    assert equal(got, theirs)


def test_a_parameter_without_a_gradient_keeps_its_own_count_of_steps():
    ours, alone = tensors(0), tensors(0)[1:2]
    gradients = [tensors(k) for k in range(1, 6)]
    late = [
        [None if i == 1 and k < 3 else g for i, g in enumerate(gs)]
        for k, gs in enumerate(gradients)
    ]

    got = run(MoClip(ours, 0.1), ours, late)

    assert torch.equal(got[1], run(MoClip(alone, 0.1), alone, [g[1:2] for g in gradients[3:]])[0])


def test_mixed_dtypes_are_updated_as_if_alone():
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float64, torch.float32]

    def mixed(seed):
        return [x.to(dtype) for x, dtype in zip(tensors(seed), dtypes, strict=True)]

    ours, theirs = mixed(0), mixed(0)
    gradients = [mixed(k) for k in range(1, 6)]
    opt = MoClip(ours, 0.1, max_angle=60)

    got = run(opt, ours, gradients)

    seen = []
    for i, p in enumerate(theirs):
        alone = MoClip([p], 0.1, max_angle=60)
        run(alone, [p], [[g[i]] for g in gradients])
        seen += alone.last_angles[0]
    assert equal(got, theirs)
    assert opt.last_angles == [seen]


def test_float32_moments_of_a_bfloat16_parameter_are_those_of_a_float32_run():
    low = tensors(0, torch.bfloat16)
    gradients = [tensors(k, torch.bfloat16) for k in range(1, 6)]
    opt = MoClip(low, 0.1, max_angle=75, state_dtype=torch.float32)

    run(opt, low, gradients)

    high = [p.float() for p in tensors(0, torch.bfloat16)]
    twin = MoClip(high, 0.1, max_angle=75)
    for grads in gradients:
        run(twin, high, [[g.float() for g in grads]])
        for p in high:
            p.copy_(p.bfloat16())  # what is stored, is rounded
    assert equal([p.float() for p in low], high)
    for p, q in zip(low, high, strict=True):
        assert opt.state[p]["exp_avg"].dtype == torch.float32
        assert torch.equal(opt.state[p]["exp_avg"], twin.state[q]["exp_avg"])
        assert torch.equal(opt.state[p]["exp_avg_sq"], twin.state[q]["exp_avg_sq"])


def test_a_closure_is_called_with_gradients_on_and_its_loss_returned():
    p = torch.tensor([3.0], requires_grad=True)
    opt = MoClip([p], lr=0.5)

    def closure():
        opt.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert opt.step(closure) == 9
    assert p.item() == pytest.approx(2.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=9),
        lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=9),
    ],
)
def test_a_scheduler_sets_rate_and_momentum(make):
    ours, theirs = tensors(0), tensors(0)
    opt, plain = MoClip(ours, 0.1, max_angle=60), MoClip(theirs, 0.1, max_angle=60)
    schedule = make(opt)
    for k in range(1, 6):
        now = {key: opt.param_groups[0][key] for key in ("lr", "betas")}
        plain.param_groups[0].update(now)
        run(opt, ours, [tensors(k)])
        run(plain, theirs, [tensors(k)])
        schedule.step()
        assert opt.param_groups[0]["lr"] != now["lr"]

    assert equal(ours, theirs)


def test_a_learning_rate_may_be_a_tensor():
    ours, theirs = tensors(0), tensors(0)
    gradients = [tensors(k) for k in range(1, 4)]

    got = run(MoClip(ours, torch.tensor(0.125)), ours, gradients)

    assert equal(got, run(MoClip(theirs, 0.125), theirs, gradients))


@pytest.mark.parametrize("degrees", [60, 120, 175])
def test_maximising_is_minimising_with_the_gradients_negated(degrees):
    g, m, _ = pair_at(0, degrees)
    for cap in (30.0, 90.0):
        taken, before = clipped(g, m, cap, maximize=True)

        negated, after = clipped(-g, -m, cap)
        assert torch.equal(taken, negated)
        assert before == after


def test_a_quadratic_is_minimised():
    p = torch.nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
    opt = MoClip([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.001, total_iters=200)
    for _ in range(200):
        opt.zero_grad()
        (p - 1).square().sum().backward()
        opt.step()
        schedule.step()

    torch.testing.assert_close(p.detach(), torch.ones(3), rtol=0, atol=0.01)


def test_angles_are_measured_at_180_degrees_only_when_asked_for(monkeypatch):
    params, gradients = tensors(0), [tensors(k) for k in range(1, 4)]
    opt = MoClip(params, 0.1, max_angle=180, track_angles=True)
    run(opt, params, gradients)

    m = gradients[0][0].mul(0.1).lerp(gradients[1][0], 0.1).flatten()
    assert opt.last_angles[0][0] == pytest.approx(angle(gradients[2][0].flatten(), m))

    monkeypatch.setattr(angles, "_sums", lambda turns, _: [] if not turns else pytest.fail())
    opt = MoClip(params, 0.1, max_angle=180)
    run(opt, params, gradients)
    assert opt.last_angles == [[]]


def test_statistics_are_those_of_each_group():
    shapes, m = [(4,)] * 5, torch.tensor([1.0, 0, 0, 0])
    turns = [torch.tensor([math.cos(x), math.sin(x), 0, 0]) for x in map(math.radians, ANGLES)]
    gradients = [[m] * 7, [*turns, torch.zeros(4), turns[0]]]
    params = tensors(0, torch.float32, shapes * 2)[:7]
    groups = [{"params": params[:6]}, {"params": params[6:], "max_angle": 180}]
    opt = MoClip(groups, lr=0.1, max_angle=80, betas=(0.0, 0.5))

    assert opt.angle_statistics() == []
    run(opt, params, gradients)
    capped, free = opt.angle_statistics(quantiles=(0.0, 0.5, 1.0))

    assert capped["tensors"] == 5  # a zero gradient has no angle
    assert capped["clip_rate"] == pytest.approx(2 / 5)  # the antiparallel one is not turned
    assert capped["quantiles"] == pytest.approx((10, 85, 180), abs=1e-4)
    assert free["tensors"] == 0
    assert math.isnan(free["clip_rate"])
    assert len(free["quantiles"]) == 3


def test_two_runs_are_identical_to_the_bit():
    runs = []
    for _ in range(2):
        params = tensors(0, torch.float32, shapes=[(300, 200), (70000,)])
        gradients = [tensors(k, torch.float32, shapes=[(300, 200), (70000,)]) for k in (1, 2, 3)]
        runs.append(run(MoClip(params, 0.1, max_angle=60), params, gradients))

    assert equal(*runs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": -1.0}, "lr must be"),
        ({"lr": math.nan}, "lr must be"),
        ({"lr": torch.tensor([0.1, 0.2])}, "lr must be"),
        ({"lr": torch.tensor(-0.1)}, "lr must be"),
        ({"betas": (1.0, 0.9)}, "betas must be"),
        ({"betas": (0.9, -0.1)}, "betas must be"),
        ({"max_angle": 0.0}, r"max_angle must be in \(0, 180\]"),
        ({"max_angle": 181.0}, r"max_angle must be in \(0, 180\]"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"step": "sgd"}, "step must be 'atan2' or 'adam'"),
        ({"a": 0.0}, "a must be"),
        ({"b": math.inf}, "b must be"),
        ({"eps": -1e-8}, "eps must be"),
        ({"state_dtype": torch.int32}, "state_dtype must be"),
        ({"state_dtype": "float33"}, "state_dtype must be"),
    ],
)
def test_a_setting_outside_its_range_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        MoClip(tensors(0), **{"lr": 0.1, **settings})
    with pytest.raises(ValueError, match=words):
        MoClip([{"params": tensors(0), **settings}], lr=0.1)


CHANGED = [
    ({"lr": "0.1"}, TypeError, "lr must be a number"),
    ({"lr": True}, TypeError, "lr must be a number"),
    ({"lr": None}, TypeError, "lr must be a number"),
    ({"lr": math.nan}, ValueError, "lr must be finite"),
    ({"lr": torch.tensor(-1.0)}, ValueError, "lr must be finite"),
    ({"betas": 0.9}, ValueError, "betas must be two"),
    ({"betas": "09"}, ValueError, "betas must be two"),
    ({"betas": (0.9, "0.99")}, TypeError, "betas must be a number, two"),
    ({"betas": (0.9, 1.0)}, ValueError, "betas must be two"),
    ({"max_angle": 0}, ValueError, r"max_angle must be in \(0, 180\]"),
    ({"max_angle": "90"}, TypeError, r"max_angle must be a number, in \(0, 180\]"),
    ({"weight_decay": None}, TypeError, "weight_decay must be a number"),
    ({"step": "Adam"}, ValueError, "step must be 'atan2' or 'adam', got 'Adam'"),
    ({"step": ["atan2"]}, ValueError, "step must be"),
    ({"a": -1.0}, ValueError, "a must be finite and > 0"),
    ({"b": "1"}, TypeError, "b must be a number"),
    ({"eps": math.inf}, ValueError, "eps must be finite"),
    ({"maximize": "no"}, TypeError, "maximize must be True or False"),
    ({"foreach": None}, TypeError, "foreach must be True or False"),
    ({"track_angles": 1}, TypeError, "track_angles must be True or False"),
    ({"state_dtype": "int8"}, ValueError, "state_dtype must be"),
]


@pytest.mark.parametrize(("changed", "error", "words"), CHANGED)
def test_a_setting_changed_later_or_loaded_is_checked_before_anything_moves(changed, error, words):
    params = tensors(0)
    opt, other = MoClip(params, 0.1), MoClip(tensors(0), 0.1)
    run(opt, params, [tensors(1)])
    before, sound = [p.clone() for p in params], copy.deepcopy(opt.state_dict())
    opt.param_groups[0].update(changed)

    with pytest.raises(error, match=words):
        run(opt, params, [tensors(2)])
    assert equal(params, before)
    assert opt.state[params[0]]["step"] == 1
    sound["param_groups"][0].update(changed)
    with pytest.raises(error, match=words):
        other.load_state_dict(sound)
    assert not other.state and other.param_groups[0]["lr"] == 0.1
    with pytest.raises(error, match=words):
        MoClip(tensors(0), **{"lr": 0.1, **changed})


def test_a_state_dtype_given_to_a_group_later_counts_for_states_made_later():
    [p, q] = tensors(0, torch.bfloat16, [(3,), (4,)])
    opt = MoClip([p, q], 0.1)
    run(opt, [p, q], [[p.clone(), None]])
    opt.param_groups[0]["state_dtype"] = torch.float32
    run(opt, [p, q], [[p.clone(), q.clone()]])

    assert [opt.state[x]["exp_avg"].dtype for x in (p, q)] == [torch.bfloat16, torch.float32]


def test_betas_read_from_json_are_as_good():
    params = tensors(0)
    opt = MoClip(params, 0.1, betas=[0.9, 0.99])

    run(opt, params, [tensors(1)])

    assert opt.state[params[0]]["step"] == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (torch.optim.AdamW, "is not MoClip's: a group lacks 'a'"),
        (torch.optim.SGD, "is not MoClip's: a group lacks 'a'"),
        (lambda params: MoClip([p.flatten()[:1] for p in params], 0.1), "is of other parameters"),
    ],
)
def test_a_state_that_is_not_its_own_is_refused_before_anything_changes(make, words):
    params = tensors(0)
    donor = make(params)
    donated = donor.param_groups[0]["params"]
    run(donor, donated, [[g.flatten()[: p.numel()].view(p.shape) for g, p in
                          zip(tensors(1), donated, strict=True)]])  # fmt: skip
    opt = MoClip(params, 0.1, max_angle=60)

    with pytest.raises(ValueError, match=words):
        opt.load_state_dict(donor.state_dict())

    assert not opt.state and opt.param_groups[0]["max_angle"] == 60


def test_a_state_without_its_moments_is_refused():
    params = tensors(0)
    opt = MoClip(params, 0.1)
    run(opt, params, [tensors(1)])
    state = copy.deepcopy(opt.state_dict())
    del state["state"][0]["exp_avg_sq"]

    with pytest.raises(ValueError, match="the state of 0 lacks 'exp_avg_sq'"):
        opt.load_state_dict(state)


def test_a_compiled_step_is_the_step_to_the_bit():
    shapes = [(3, 4), (5,), (7, 2, 2)]
    ours, theirs = (tensors(0, torch.float32, shapes) for _ in range(2))
    gradients = [tensors(k, torch.float32, shapes) for k in range(1, 4)]
    opt = MoClip(ours, 0.1, max_angle=60)
    opt.step = torch.compile(opt.step, backend="eager")

    got = run(opt, ours, gradients)

    assert equal(got, run(MoClip(theirs, 0.1, max_angle=60), theirs, gradients))
    torch.compiler.reset()


def test_sparse_and_complex_gradients_are_refused_before_anything_moves():
    dense = torch.ones(2)
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    number = torch.ones(2, dtype=torch.complex64)
    number.grad = torch.ones_like(number)

    for odd, words in ((embedding.weight, "sparse"), (number, "complex")):
        dense.grad = torch.ones(2)
        opt = MoClip([dense, odd], lr=0.1)
        with pytest.raises(RuntimeError, match=words):
            opt.step()
        assert dense.tolist() == [1, 1]
        assert not opt.state
