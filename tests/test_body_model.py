"""The pruned hand is the full hand, lighter."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from myoloop.body.model import full_model, load_hand
from myoloop.errors import MyoloopError

SECONDS = 1.0


@pytest.fixture(scope="module")
def models() -> tuple[mujoco.MjModel, mujoco.MjModel]:
    return full_model(), load_hand(0.002, cache=False, integrator="Euler").model


def dense_moment(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    dense = np.zeros((model.nu, model.nv))
    mujoco.mju_sparse2dense(dense, data.actuator_moment, data.moment_rownnz, data.moment_rowadr, data.moment_colind)
    return dense


def test_pruning_removes_most_sites_geoms_and_bodies(models):
    full, pruned = models
    assert pruned.nsite < 0.3 * full.nsite
    assert pruned.ngeom < 0.3 * full.ngeom
    assert pruned.nbody < 0.4 * full.nbody
    assert pruned.nmesh == 0
    assert (pruned.nq, pruned.nu, pruned.ntendon, pruned.nwrap) == (full.nq, full.nu, full.ntendon, full.nwrap)


def test_pruned_lengths_moment_arms_and_inertia_equal_the_full_models_in_random_postures(models):
    full, _ = models
    data = [mujoco.MjData(model) for model in models]
    rng = np.random.default_rng(0)
    for _ in range(50):
        qpos, qvel = rng.uniform(*full.jnt_range.T), rng.normal(size=full.nv)
        seen = []
        for model, d in zip(models, data, strict=True):
            d.qpos[:], d.qvel[:] = qpos, qvel
            mujoco.mj_forward(model, d)
            mass = np.zeros((model.nv, model.nv))
            mujoco.mj_fullM(model, d, mass)
            tips = [d.site(name).xpos.copy() for name in ("THtip_r", "IFtip_r", "LFtip_r")]
            seen.append((d.actuator_length.copy(), dense_moment(model, d), mass, d.qfrc_bias.copy(), np.array(tips)))
        for a, b in zip(*seen, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_pruned_trajectory_equals_the_full_models_for_a_second_of_random_excitations(models):
    data = [mujoco.MjData(model) for model in models]
    rng = np.random.default_rng(1)
    for step in range(int(SECONDS / 0.002)):
        if step % 10 == 0:
            excitation = rng.uniform(0, 0.6, models[0].nu)
        for model, d in zip(models, data, strict=True):
            d.ctrl[:] = excitation
            mujoco.mj_step(model, d)
    assert np.abs(data[0].qpos).max() > 0.3  # the hand has moved
    # rounding differs (bodies are fused), and a muscle-driven hand magnifies it little: far below a thousandth of a deg
    np.testing.assert_allclose(data[0].qpos, data[1].qpos, rtol=0, atol=1e-8)
    np.testing.assert_allclose(data[0].act, data[1].act, rtol=0, atol=1e-12)


def test_the_hand_for_drawing_has_bones_and_the_same_physics():
    drawn, plain = load_hand(visual=True).model, load_hand().model
    assert drawn.nmesh > 20
    assert drawn.camera("hand").id >= 0
    np.testing.assert_array_equal(drawn.body_mass, plain.body_mass)
    np.testing.assert_array_equal(drawn.body_inertia, plain.body_inertia)
    np.testing.assert_array_equal(drawn.actuator_lengthrange, plain.actuator_lengthrange)
    assert not drawn.geom_contype.any() and not drawn.geom_conaffinity.any()


def test_nothing_of_the_full_hand_would_have_touched_anything(models):
    full, _ = models
    below = [full.body("radius_r").id]
    for body in range(full.nbody):
        if full.body_parentid[body] in below:
            below.append(body)
    hand = np.isin(full.geom_bodyid, below) & ((full.geom_contype > 0) | (full.geom_conaffinity > 0))
    meets = full.geom_contype[hand][:, None] & full.geom_conaffinity[hand][None, :]
    assert hand.sum() > 20 and not meets.any()


def test_a_damaged_cache_file_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sites = load_hand().model.nsite
    (cached,) = (tmp_path / "myoloop").glob("*.mjb")
    cached.write_bytes(b"not a model")
    assert load_hand().model.nsite == sites
    assert load_hand().model.nsite == sites
    assert cached.stat().st_size > 1000


def test_loading_writes_nothing_into_the_working_directory(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    load_hand(cache=False)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_an_absurd_physics_step_is_refused():
    with pytest.raises(MyoloopError, match=r"physics_dt is 0\.02 s; expected 0\.0005 to 0\.005"):
        load_hand(physics_dt=0.02)


def test_an_unknown_integrator_is_refused():
    with pytest.raises(MyoloopError, match=r"unknown integrator 'implicit'\. Did you mean 'implicitfast'"):
        load_hand(integrator="implicit")
