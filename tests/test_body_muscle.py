"""The JAX muscle model is MuJoCo's."""

from __future__ import annotations

import mujoco
import numpy as np

from myoloop.body.model import load_hand
from myoloop.body.muscle import muscle_force, muscle_parameters


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
