"""Intervals of a subject's age: conformal ones, those of a new cohort, and the posterior."""
