"""Speeds of the codecs, compiled and in torch."""
