"""Fit a decoder to one person in a minute: only its last, linear layer learns, and it is held to what it was."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from myoloop.decoder import networks
from myoloop.learn.supervised import Recordings, check_recordings


def personalised(
    network: networks.Config, params: networks.Params, recordings: Recordings, hold: float = 3.0, updates: int = 300
) -> networks.Params:
    """Parameters with a last layer fitted to a person's own recordings; the layers before it stay as they are.

    Args:
      network, params: the decoder to start from.
      recordings: EMG of the person with what was asked, 20 to 60 s in all are enough.
      hold: weight of the pull of the last layer towards what it was (a ridge), in units of one second of recording: the more
        has been recorded, the less it counts.
      updates: steps of Adam over all recordings at once.

    Raises:
      MyoloopError: recordings that do not fit the decoder.
    """
    warm = int(np.ceil(network.looks_back_s * network.rate_hz / network.samples_per_call))
    check_recordings(network, recordings, warm + 1)
    features = networks.head_inputs(network, params, jnp.asarray(recordings.emg))[:, warm:]
    wanted = jnp.asarray(recordings.labels)[:, warm:]
    seconds = wanted.shape[0] * wanted.shape[1] * network.samples_per_call / network.rate_hz
    return {**params, "head": _fit_head(params["head"], features, wanted, hold / seconds, updates)}


def _fit_head(
    head: networks.Params, features: jax.Array, wanted: jax.Array, hold: float, updates: int
) -> networks.Params:
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, updates))

    def loss(now: networks.Params) -> jax.Array:
        odds = jnp.matmul(features, now["kernel"], precision="highest") + now["bias"]
        moved = sum(
            jnp.sum(jnp.square(a - b)) for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(head), strict=True)
        )
        return optax.sigmoid_binary_cross_entropy(odds, wanted).mean() + hold * moved / wanted.shape[-1]

    @jax.jit
    def all_updates(head: networks.Params) -> networks.Params:
        def update(now, _):  # type: ignore[no-untyped-def]
            params, state = now
            change, state = optimiser.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, change), state), None

        return jax.lax.scan(update, (head, optimiser.init(head)), None, updates)[0][0]

    return all_updates(head)
