"""The public name of `register`, with which a type of your own travels between stages."""

from pipeline.stage.values import register

__all__ = ["register"]
