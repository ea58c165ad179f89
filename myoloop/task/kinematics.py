"""Where the fingertips are: forward kinematics of the fingers in pure JAX, for batches of thousands.

A finger is a chain of hinges on the carpus. With all joints at the model's zero posture, hinge i has an axis a_i through
a point c_i, and the tip is somewhere; turning hinge i by q_i turns everything beyond it about that axis. So the tip goes
through the hinges from the last to the first (product of exponentials: Lynch & Park 2017, Modern Robotics, 4.1), and
each is one rotation of one vector: Rodrigues' formula, no matrices and no quaternions. All fixed transforms between the
bones have gone into a_i and c_i. Forearm and wrist do not appear, as the carpus is the frame.

    kin = build_kinematics(load_hand())
    tips = fingertips(kin, qpos)  # (..., 5, 3) m, as BodyState.fingertips
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from myoloop.body.model import Hand
from myoloop.body.names import FINGERS
from myoloop.errors import MyoloopError


@struct.dataclass
class Kinematics:
    """The fingers as chains of hinges in the frame of the carpus, at the model's zero posture."""

    axis: jax.Array
    """(hinges, 3, 5) unit vectors, from the palm to the tip; zero where a finger has fewer hinges than others."""
    anchor: jax.Array
    """(hinges, 3, 5) a point of each axis, m."""
    tip: jax.Array
    """(3, 5) the fingertips, m."""
    zero: jax.Array
    """(23,) joint angles of the zero posture, rad."""
    joints: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    """(hinges, 5) index into JOINTS of every hinge."""


def build_kinematics(hand: Hand) -> Kinematics:
    """Read the chains from the compiled model.

    Raises:
      MyoloopError: a fingertip does not hang on the carpus by hinges alone, or joints are coupled to each other.
    """
    model = hand.model
    coupled = int((model.eq_type == mujoco.mjtEq.mjEQ_JOINT).sum())
    if coupled:
        raise MyoloopError(
            f"the hand has {coupled} equality constraint(s) that couple joints; expected none: "
            "fingertips would not be a function of the free joints alone. Remove them from the model."
        )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    origin, axes = data.xpos[hand.wrist_body], data.xmat[hand.wrist_body].reshape(3, 3)
    chains = [_chain(hand, finger) for finger in range(len(FINGERS))]
    hinges = max(map(len, chains))
    axis, anchor = np.zeros((2, hinges, 3, len(FINGERS)))
    joints = np.zeros((hinges, len(FINGERS)), int)
    for finger, chain in enumerate(chains):
        used = len(chain)
        axis[:used, :, finger] = data.xaxis[chain] @ axes
        anchor[:used, :, finger] = (data.xanchor[chain] - origin) @ axes
        joints[:used, finger] = chain
    return Kinematics(
        axis=jnp.asarray(axis, jnp.float32),
        anchor=jnp.asarray(anchor, jnp.float32),
        tip=jnp.asarray(((data.site_xpos[hand.fingertip_sites] - origin) @ axes).T, jnp.float32),
        zero=jnp.asarray(model.qpos0, jnp.float32),
        joints=tuple(tuple(row) for row in joints.tolist()),
    )


def fingertips(kin: Kinematics, qpos: ArrayLike) -> jax.Array:
    """(..., 5, 3) positions of the fingertips, thumb to little, m, in the frame of the carpus.

    Args:
      kin: the hand.
      qpos: (..., 23) joint angles, rad. Those of the forearm and the wrist make no difference.
    """
    turned = jnp.asarray(qpos, jnp.float32) - kin.zero
    # the components stay apart, so that each line is one long vector over batch and fingers
    at = [jnp.broadcast_to(part, (*turned.shape[:-1], len(FINGERS))) for part in kin.tip]
    for axis, anchor, joints in reversed(list(zip(kin.axis, kin.anchor, kin.joints, strict=True))):
        at = _turn(at, axis, anchor, turned[..., np.array(joints)])
    return jnp.stack(at, axis=-1)


def _turn(at: list[jax.Array], axis: jax.Array, anchor: jax.Array, angle: jax.Array) -> list[jax.Array]:
    """Points (x, y, z), each (..., 5), turned about axes (3, 5) through anchors (3, 5) by angles (..., 5), rad."""
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    arm = [part - centre for part, centre in zip(at, anchor, strict=True)]
    along = (axis[0] * arm[0] + axis[1] * arm[1] + axis[2] * arm[2]) * (1.0 - cos)
    turned = []
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        across = axis[j] * arm[k] - axis[k] * arm[j]
        turned.append(anchor[i] + cos * arm[i] + sin * across + along * axis[i])
    return turned


def _chain(hand: Hand, finger: int) -> list[int]:
    """Joints from the carpus to a fingertip, in the order in which they act."""
    model = hand.model
    chain: list[int] = []
    body = int(hand.fingertip_bodies[finger])
    while body != hand.wrist_body:
        if body == 0:
            raise MyoloopError(
                f"the tip of the {FINGERS[finger]} finger does not hang on body '{model.body(hand.wrist_body).name}'; "
                "expected every finger beyond the carpus. Check wrist_body of the hand."
            )
        first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
        own = list(range(first, first + count))
        for joint in own:
            if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
                kind = mujoco.mjtJoint(int(model.jnt_type[joint])).name.removeprefix("mjJNT_").lower()
                raise MyoloopError(
                    f"joint '{model.joint(joint).name}' of the {FINGERS[finger]} finger is of type {kind}; "
                    "expected hinges only: this forward kinematics knows no other."
                )
        chain = own + chain
        body = int(model.body_parentid[body])
    return chain
