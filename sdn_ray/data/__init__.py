"""Captioned data sets: readers, zero-shot splits by class, the embedded data set, batches."""
