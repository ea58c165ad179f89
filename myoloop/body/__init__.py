"""The musculoskeletal hand and its physics."""
