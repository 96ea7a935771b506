"""The teacher, its mirror image the generator, and the classifiers that score images."""
