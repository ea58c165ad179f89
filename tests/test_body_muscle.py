"""The JAX muscle model is MuJoCo's."""

from __future__ import annotations

import mujoco
import numpy as np

from myoloop.body.model import load_hand
from myoloop.body.muscle import muscle_force, muscle_parameters, muscle_resistance


def test_gain_and_passive_force_equal_mujocos():
    model = load_hand().model
    p = muscle_parameters(model)
    rng = np.random.default_rng(0)
    low, high = model.actuator_lengthrange.T
    for _ in range(50):
        length = low + rng.uniform(-2.0, 3.0, model.nu) * (high - low)
        velocity = rng.normal(0, 0.2, model.nu)
        got = muscle_force(p, length, velocity)
        for i in range(model.nu):
            span, strength = model.actuator_lengthrange[i], model.actuator_acc0[i]
            gain = mujoco.mju_muscleGain(length[i], velocity[i], span, strength, model.actuator_gainprm[i, :9])
            bias = mujoco.mju_muscleBias(length[i], span, strength, model.actuator_biasprm[i, :9])
            np.testing.assert_allclose(got.gain[i], -gain, rtol=1e-4, atol=2e-3)
            np.testing.assert_allclose(got.passive[i], -bias, rtol=1e-4, atol=2e-3)


def test_resistance_is_the_slope_of_mujocos_gain_over_velocity_at_rest_too():
    model = load_hand().model
    p = muscle_parameters(model)
    low, high = model.actuator_lengthrange.T
    length = 0.5 * (low + high)
    full_speed = np.asarray(p.optimal_length * p.speed)
    for part in (-2.0, -0.5, -0.1, 0.0, 0.1, 0.3, 3.0):
        velocity, nudge = part * full_speed, 1e-5 * full_speed
        got = muscle_resistance(p, length, velocity)
        for i in range(model.nu):
            about = model.actuator_lengthrange[i], model.actuator_acc0[i], model.actuator_gainprm[i, :9]
            gains = [
                mujoco.mju_muscleGain(length[i], v, *about) for v in (velocity[i] - nudge[i], velocity[i] + nudge[i])
            ]
            np.testing.assert_allclose(got[i], (gains[0] - gains[1]) / (2 * nudge[i]), rtol=5e-3, atol=0.1)
