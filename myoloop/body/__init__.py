"""The musculoskeletal hand and its physics."""

PHYSICS_DT = 0.005
"""s: the step of the physics that training and live sessions share. With `implicitfast` it moves joints 0.2 deg (mean)
from where 0.5 ms steps bring them within 1 s, at less than half the cost of the model's own 2 ms: docs/physics-settings.md."""
