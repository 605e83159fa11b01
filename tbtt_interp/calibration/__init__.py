"""Calibration: instruments read on planted models and on nulls, and what they got right."""
