"""Shortcut learning: label flips of segmentations; GroupDRO and background CutMix against it."""
