"""Lanes, cohorts and their optimizers: training that knows nothing of the search."""
