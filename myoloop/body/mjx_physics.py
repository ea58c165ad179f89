"""The hand's physics as pure functions of JAX arrays, on MuJoCo MJX (`jax`) or MuJoCo Warp (`warp`).

    physics = MjxPhysics(load_hand(), participants=1024)
    state = physics.start()
    state = physics.advance(state, excitation)  # (1024, 39); one control step; inside jit and scan as well
    body = physics.felt(state)  # BodyState; what is not used of it costs nothing under jit

The state holds nothing but what the future depends on; MJX's own Data is built from it anew for every physics step. So
participants can be chosen between with `jnp.where`, saved and stacked without knowing how either engine lays out its
memory, and no derived field can be one physics step old.
"""

from __future__ import annotations

import copy
import importlib
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from flax import struct

from myoloop.body.engine import PUSHED, BodyState, Posture, substeps
from myoloop.body.model import Hand
from myoloop.body.muscle import muscle_parameters, muscle_resistance
from myoloop.errors import MyoloopError

ABSURD = 1e10  # rad, rad/s: where MuJoCo itself gives a simulation up (mjMAXVAL)
ITERATIONS = (
    4  # of the constraint solver; a batch waits for its slowest. 3 give what 100 give: docs/physics-settings.md
)
WARP_ITERATIONS = 8  # Warp lets every participant stop by itself, and complains about one that is not done after 4
LINE_SEARCH = 8  # evaluations in each
INSIDE_WRAPS = {
    "_impl.wrap_inside_maxiter": 20,
    "_impl.wrap_inside_tolerance": 1e-4,
    "_impl.wrap_inside_z_init": 1.0 - 1e-7,
}
"""How MJX looks for the path of a tendon inside a pulley: C's numbers, with a tolerance that float32 can reach. MJX's own
(5 steps from 1 - 1e-5) end in another place in one length of a thousand: 0.2 mm, and 0.2 deg a second later."""
CONSTRAINTS = 23  # of one hand at most: every joint at a limit


@struct.dataclass
class Physics:
    """Everything that the future of B participants depends on; float32."""

    qpos: jax.Array
    """(B, 23) rad."""
    qvel: jax.Array
    """(B, 23) rad/s."""
    activation: jax.Array
    """(B, 39) 0..1."""
    warmstart: jax.Array
    """(B, 23) rad/s^2, where the constraint solver begins."""
    time: jax.Array
    """(B,) s since the reset."""
    diverged: jax.Array
    """(B,) bool, see BodyState."""


class MjxPhysics:
    """B hands in JAX. All methods are pure."""

    def __init__(self, hand: Hand, participants: int = 1, control_dt: float = 0.02, impl: str = "jax"):
        """
        Args:
          hand: with the physics step and the integrator wanted.
          participants: B.
          control_dt: s; a whole number of physics steps.
          impl: "jax", or "warp": MuJoCo Warp's kernels, called from JAX.

        Raises:
          MyoloopError: MJX or Warp is not installed, or control_dt does not fit.
        """
        self._mjx = _load(impl)
        self.hand = hand
        self.participants = participants
        self.control_dt = control_dt
        self._substeps = substeps(hand, participants, control_dt)
        self._dt = float(hand.model.opt.timestep)
        model = copy.copy(hand.model)
        model.opt.iterations, model.opt.ls_iterations = ITERATIONS, LINE_SEARCH
        self._implicit = model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        self._model = self._mjx.put_model(model, impl="jax").tree_replace(INSIDE_WRAPS)
        self._blank = self._mjx.make_data(model, impl="jax")
        self._muscles = muscle_parameters(model)
        self._damping = jnp.asarray(model.dof_damping, jnp.float32)
        self._substep = self._substep_jax
        if impl == "warp":
            model.opt.iterations = WARP_ITERATIONS
            self._warp_model = self._mjx.put_model(model, impl="warp")
            # one contact in all: the hand has none (body/model.py), and an array cannot be empty
            self._warp_blank = self._mjx.make_data(model, impl="warp", naconmax=1, njmax=CONSTRAINTS)
            self._substep = self._substep_warp

    def start(self) -> Physics:
        """Everybody at rest in the neutral posture."""
        b, model = self.participants, self.hand.model
        neutral = jnp.broadcast_to(jnp.asarray(model.qpos0, jnp.float32), (b, model.nq))
        return _at_rest(neutral, model.na)

    def placed(self, state: Physics, qpos: jax.Array, chosen: jax.Array) -> Physics:
        """The chosen ones, (B,) bool, at rest at qpos, (B, 23) rad, time 0; the others untouched."""
        fresh = _at_rest(jnp.asarray(qpos, jnp.float32), self.hand.model.na)
        return _choose(jnp.asarray(chosen), fresh, state)

    def advance(
        self,
        state: Physics,
        excitation: jax.Array,
        push: jax.Array | None = None,
        activation: jax.Array | None = None,
    ) -> Physics:
        """One control step.

        Args:
          state: of all.
          excitation: (B, 39) 0..1; not checked.
          push: (B, 6, 3) N, as Engine.push; None: nobody is pushed.
          activation: (B, 39) 0..1 or NaN, as Engine.step.

        Returns:
          The state after it. A participant whose numbers are no longer finite, or absurd, is at rest in the neutral
          posture and flagged `diverged`, until it is placed.
        """
        if push is None:
            push = jnp.zeros((self.participants, PUSHED, 3), jnp.float32)
        if activation is not None:
            given = ~jnp.isnan(activation)
            excitation = jnp.where(given, activation, excitation)
            state = replace(state, activation=jnp.where(given, activation, state.activation))
        with jax.default_matmul_precision("highest"):  # an NVIDIA GPU would round matrix products to ten bits
            moved = jax.vmap(self._one)(state, jnp.asarray(excitation, jnp.float32), push)
        sound = jnp.ones(self.participants, bool)
        for value in (moved.qpos, moved.qvel, moved.activation):
            sound &= (jnp.abs(value) < ABSURD).all(axis=1)  # false for NaN, too
        kept = _choose(sound, moved, self.start())
        return replace(kept, diverged=state.diverged | ~sound)

    def felt(self, state: Physics) -> BodyState:
        """Every field of the body at the state, JAX arrays in float32."""
        with jax.default_matmul_precision("highest"):
            derived: dict[str, Any] = jax.vmap(self._derived)(state)
        return BodyState(**self.posture(state)._asdict(), **derived)

    def posture(self, state: Physics) -> Posture:
        """The part of `felt` that needs no computing."""
        fields: list[Any] = [state.qpos, state.qvel, state.activation, state.time, state.diverged]
        return Posture(*fields)

    def _data(self, blank: Any, state: Physics, excitation: jax.Array, on_bodies: jax.Array) -> Any:
        return blank.replace(
            qpos=state.qpos,
            qvel=state.qvel,
            act=state.activation,
            qacc_warmstart=state.warmstart,
            ctrl=excitation,
            xfrc_applied=on_bodies,
        )

    def _one(self, state: Physics, excitation: jax.Array, push: jax.Array) -> Physics:
        """One control step of one participant; arrays without B."""
        on_bodies = self._on_bodies(state, push)

        def step(now: Physics, _: None) -> tuple[Physics, None]:
            return self._substep(now, excitation, on_bodies), None

        state, _ = jax.lax.scan(step, state, length=self._substeps)
        return state

    def _on_bodies(self, state: Physics, push: jax.Array) -> jax.Array:
        """(bodies, 6) force and torque about every body's centre of mass, N and N m."""
        hand = self.hand
        data = self._mjx.kinematics(self._model, self._blank.replace(qpos=state.qpos))
        arm = data.site_xpos[hand.fingertip_sites] - data.xipos[hand.fingertip_bodies]
        tips = jnp.concatenate([push[:5], jnp.cross(arm, push[:5])], axis=-1)
        on_bodies = jnp.zeros((hand.model.nbody, 6), jnp.float32)
        return on_bodies.at[hand.fingertip_bodies].set(tips).at[hand.wrist_body, :3].set(push[5])

    def _substep_warp(self, state: Physics, excitation: jax.Array, on_bodies: jax.Array) -> Physics:
        data = self._mjx.step(self._warp_model, self._data(self._warp_blank, state, excitation, on_bodies))
        return replace(
            state,
            qpos=data.qpos,
            qvel=data.qvel,
            activation=data.act,
            warmstart=data.qacc_warmstart,
            time=state.time + self._dt,
        )

    def _substep_jax(self, state: Physics, excitation: jax.Array, on_bodies: jax.Array) -> Physics:
        """As mjx.step, but `implicitfast` with the muscles' force-velocity relation, as in C: MJX leaves it out, and
        at 5 ms the hand would then follow other trajectories (Euler's, wrong by up to 45 deg)."""
        data = self._data(self._blank, state, excitation, on_bodies)
        data = _dynamics(self._mjx, self._model, _muscles(self._mjx, self._model, data))
        matrix = self._mjx.full_m(self._model, data) + self._dt * jnp.diag(self._damping)
        if self._implicit:
            moment = data._impl.actuator_moment
            slope = muscle_resistance(self._muscles, data.actuator_length, data._impl.actuator_velocity)
            matrix += self._dt * moment.T @ ((state.activation * slope)[:, None] * moment)
        factor = jax.scipy.linalg.cho_factor(matrix)
        qacc = jax.scipy.linalg.cho_solve(factor, data.qfrc_smooth + data.qfrc_constraint)
        qvel = state.qvel + self._dt * qacc
        return replace(
            state,
            qpos=state.qpos + self._dt * qvel,
            qvel=qvel,
            activation=state.activation + self._dt * data.act_dot,
            warmstart=data.qacc,
            time=state.time + self._dt,
        )

    def _derived(self, state: Physics) -> dict[str, jax.Array]:
        """Fields of BodyState that follow from one participant's state."""
        hand = self.hand
        data = self._data(self._blank, state, jnp.zeros(hand.model.nu), jnp.zeros((hand.model.nbody, 6)))
        data = _muscles(self._mjx, self._model, data)
        tips = data.site_xpos[hand.fingertip_sites] - data.xpos[hand.wrist_body]
        return {
            "length": data.actuator_length,
            "velocity": data._impl.actuator_velocity,
            "moment": data._impl.actuator_moment,
            "force": -data.actuator_force,
            "bias": data.qfrc_bias,
            "fingertips": tips @ data.xmat[hand.wrist_body],
        }


def _muscles(mjx: Any, model: Any, data: Any) -> Any:
    """Everything up to the muscles' forces. As mjx.forward, which spends a third of its time on what this hand lacks:
    contacts, sensors, cameras, tendons with inertia."""
    for stage in (mjx.kinematics, mjx.com_pos, mjx.tendon, mjx.transmission):
        data = stage(model, data)
    data = data.tree_replace({"_impl.actuator_velocity": data._impl.actuator_moment @ data.qvel})
    for stage in (mjx.com_vel, mjx.passive, mjx.rne, mjx.fwd_actuation):
        data = stage(model, data)
    return data


def _dynamics(mjx: Any, model: Any, data: Any) -> Any:
    """From the forces to the accelerations, joint limits included."""
    for stage in (mjx.crb, mjx.factor_m, mjx.make_constraint, mjx.fwd_acceleration, mjx.solve):
        data = stage(model, data)
    return data


def _at_rest(qpos: jax.Array, muscles: int) -> Physics:
    b = qpos.shape[0]
    still = jnp.zeros_like(qpos)
    return Physics(qpos, still, jnp.zeros((b, muscles), jnp.float32), still, jnp.zeros(b), jnp.zeros(b, bool))


def _choose(first: jax.Array, a: Physics, b: Physics) -> Physics:
    """Participants of a where `first` (B,) holds, else of b."""
    return jax.tree.map(lambda x, y: jnp.where(first.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)


def _load(impl: str) -> Any:
    """mujoco.mjx, after a look whether it can work."""
    needed = {"mjx": ["mujoco.mjx"], "warp": ["mujoco.mjx", "warp"]}["warp" if impl == "warp" else "mjx"]
    for module in needed:
        try:
            importlib.import_module(module)
        except ImportError as error:
            name = "warp" if impl == "warp" else "mjx"
            raise MyoloopError(
                f"engine '{name}' needs {module}, which is not installed ({error}): "
                "pip install 'myoloop[warp]', or use engine 'mujoco'."
            ) from error
    return importlib.import_module("mujoco.mjx")
