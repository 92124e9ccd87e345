"""MoClip against a loop of its equations, against its two parents at 180 degrees, and alone."""

import copy
import io
import math

import pytest
import torch
from adam_atan2_pytorch import AdamAtan2
from hypothesis import given, settings
from hypothesis import strategies as st

from lrmoclip import optim
from lrmoclip.optim import MoClip, cap_angles
from tests.reference.moclip_loop import MoClipLoop

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

    [turned], [before] = cap_angles([g], [m], cap)

    assert before == pytest.approx(degrees, abs=1e-6)
    assert angle(turned, m) == pytest.approx(min(degrees, cap), abs=1e-6)
    assert turned.norm().item() == pytest.approx(length, rel=1e-12)
    assert turned @ side > 0
    in_plane = (turned @ m) / (m @ m) * m + (turned @ side) * side
    torch.testing.assert_close(turned, in_plane, rtol=0, atol=1e-9 * length)
    if degrees <= cap - 1e-6:
        assert turned is g


@pytest.mark.parametrize(
    ("dtype", "degrees"), [(torch.float32, 1e-3), (torch.bfloat16, 0.5), (torch.float16, 0.1)]
)
def test_the_cap_holds_in_lower_precision(dtype, degrees):
    for seed, theta in enumerate([30.0, 95.0, 140.0, 179.0]):
        g, m, _ = pair_at(seed, theta, n=200)
        g, m = g.to(dtype), m.to(dtype)

        [turned], _ = cap_angles([g], [m], 75.0)

        assert turned.dtype == dtype
        assert angle(turned.double(), m.double()) == pytest.approx(min(theta, 75), abs=degrees)
        assert turned.double().norm() == pytest.approx(1, rel=1e-5 + torch.finfo(dtype).eps)


def test_the_momentum_is_the_one_before_the_step():
    p = torch.zeros(2, dtype=torch.float64)
    east, north = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    opt = MoClip([p], lr=1.0, betas=(0.5, 0.5), max_angle=30, track_angles=True)

    run(opt, [p], [[east], [north]])

    assert opt.last_angles == pytest.approx([90])
    turned = torch.tensor([math.cos(math.pi / 6), 0.5], dtype=torch.float64)
    torch.testing.assert_close(opt.state[p]["exp_avg"], 0.25 * east + 0.5 * turned)
    torch.testing.assert_close(opt.state[p]["exp_avg_sq"], 0.25 * east + 0.5 * turned**2)


def test_an_antiparallel_gradient_is_left_as_it_is():
    m = tensors(0, shapes=[(6,)])[0]

    [kept], [before] = cap_angles([-3 * m], [m], 60.0)

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

    [turned], _ = cap_angles([g], [m], 60.0)

    assert angle(turned, m) == pytest.approx(60, abs=1e-6)


def test_the_first_gradient_and_a_zero_gradient_are_not_turned():
    g, zero = tensors(0, shapes=[(6,)])[0], torch.zeros(6, dtype=torch.float64)

    kept, angles = cap_angles([g, zero, zero], [zero, g, zero], 1.0)

    assert kept[0] is g
    assert kept[1] is kept[2] is zero
    assert all(math.isnan(x) for x in angles)


def test_a_zero_gradient_lets_the_momentum_decay():
    [p] = tensors(0, shapes=[(6,)])
    opt = MoClip([p], lr=0.1, max_angle=30, betas=(0.5, 0.5))
    [g] = tensors(1, shapes=[(6,)])

    run(opt, [p], [[g], [torch.zeros_like(g)]])

    torch.testing.assert_close(opt.state[p]["exp_avg"], g / 4)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_saved_run_continues_to_the_same_bits(dtype):
    gradients = [tensors(k, dtype) for k in range(1, 9)]
    whole, first = tensors(0, dtype), tensors(0, dtype)
    want = run(MoClip(whole, 0.1, max_angle=60, weight_decay=0.1), whole, gradients)

    opt = MoClip(first, 0.1, max_angle=60, weight_decay=0.1)
    run(opt, first, gradients[:4])
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    second = [p.clone() for p in first]
    resumed = MoClip(second, 99.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))

    assert equal(run(resumed, second, gradients[4:]), want)


def test_a_copy_steps_like_the_original():
    params = tensors(0)
    opt = MoClip(params, 0.1, max_angle=60, track_angles=True)
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
    opt = MoClip(ours, 0.1, max_angle=60, track_angles=True)

    got = run(opt, ours, gradients)

    angles = []
    for i, p in enumerate(theirs):
        alone = MoClip([p], 0.1, max_angle=60, track_angles=True)
        run(alone, [p], [[g[i]] for g in gradients])
        angles += alone.last_angles
    assert equal(got, theirs)
    assert opt.last_angles == tuple(angles)


def test_bfloat16_follows_float32_within_its_precision():
    low, high = tensors(0, torch.bfloat16), tensors(0, torch.bfloat16)
    high = [p.float() for p in high]
    gradients = [tensors(k, torch.bfloat16) for k in range(1, 6)]

    got = run(MoClip(low, 0.1, max_angle=75), low, gradients)

    want = run(MoClip(high, 0.1, max_angle=75), high, [[g.float() for g in gs] for gs in gradients])
    for x, y in zip(got, want, strict=True):
        assert x.dtype == torch.bfloat16
        torch.testing.assert_close(x.float(), y, rtol=0.02, atol=0.02)


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


def test_angles_are_kept_only_when_asked_for(monkeypatch):
    gradients = [tensors(k) for k in range(1, 4)]

    def angles_of(**settings):
        params = tensors(0)
        opt = MoClip(params, 0.1, **settings)
        run(opt, params, gradients)
        return opt.last_angles

    assert angles_of(max_angle=60) == ()
    free, capped = (angles_of(max_angle=x, track_angles=True) for x in (180, 60))
    assert len(free) == len(capped) == len(SHAPES)
    assert free != capped  # a capped past is another momentum
    m = gradients[0][0] * 0.1
    m = m.lerp(gradients[1][0], 0.1)
    assert free[0] == pytest.approx(angle(gradients[2][0].flatten(), m.flatten()))

    monkeypatch.setattr(optim, "cap_angles", None)
    assert angles_of(max_angle=180) == ()  # not even computed


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
        ({"betas": (1.0, 0.9)}, "betas must be"),
        ({"betas": (0.9, -0.1)}, "betas must be"),
        ({"max_angle": 0.0}, r"max_angle must lie in \(0, 180\]"),
        ({"max_angle": 181.0}, r"max_angle must lie in \(0, 180\]"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"step": "sgd"}, "step must be 'atan2' or 'adam'"),
        ({"a": 0.0}, "a must be"),
        ({"b": math.inf}, "b must be"),
        ({"eps": -1e-8}, "eps must be"),
    ],
)
def test_a_setting_outside_its_range_is_named(settings, words):
    with pytest.raises(ValueError, match=words):
        MoClip(tensors(0), **{"lr": 0.1, **settings})
    with pytest.raises(ValueError, match=words):
        MoClip([{"params": tensors(0), **settings}], lr=0.1)


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
