"""A result in the formats of other programs."""

from wsi_twostage.export.writing import SUFFIXES, Exported, Options, export

__all__ = ["SUFFIXES", "Exported", "Options", "export"]
