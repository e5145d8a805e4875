"""A batch job processor for prompts."""

__version__ = "0.1.0"
