"""From observation to muscle excitation."""

BASELINE = "baseline"
"""Named instead of a policy's file: the controller without learning (policy/baseline.py)."""
