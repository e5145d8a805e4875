"""Tests, in the order of the street."""
