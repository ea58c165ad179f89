"""Fit the discriminants of an LDA decoder (decoder/lda.py), one a finger, by scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from myoloop.body.names import FINGERS
from myoloop.decoder import lda
from myoloop.decoder.front_end import Params
from myoloop.errors import MyoloopError


def fit_discriminants(config: lda.LdaConfig, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Params:
    """Discriminants with a shrunk covariance (Ledoit & Wolf 2004) and the classes' frequencies as priors.

    Args:
      config: what is looked at.
      batches: EMG (crops, samples, channels) and labels (crops, frames, 5), 0 or 1. The window's length at the start of each
        crop is left out.

    Raises:
      MyoloopError: a finger that is never flexed, or never extended.
    """
    features, labels = [], []
    for emg, wanted in batches:
        features.append(np.asarray(lda.head_inputs(config, {}, jnp.asarray(emg)))[:, config.window_frames - 1 :])
        labels.append(wanted[:, config.window_frames - 1 :])
    x = np.concatenate(features).reshape(-1, config.channels)
    y = np.concatenate(labels).reshape(-1, len(FINGERS)) > 0.5
    kernel, bias = [], []
    for finger, name in enumerate(FINGERS):
        if y[:, finger].all() or not y[:, finger].any():
            found = "always" if y[:, finger].any() else "never"
            raise MyoloopError(
                f"the {name} is {found} flexed in the recordings: a discriminant needs both. Record longer."
            )
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y[:, finger])
        kernel.append(fitted.coef_[0])
        bias.append(fitted.intercept_[0])
    return {
        "head": {"kernel": jnp.asarray(np.stack(kernel, axis=1), jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    }
