"""Metrics: pure functions, numpy in, numbers out. No model, no file, no torch."""
