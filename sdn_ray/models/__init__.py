"""The teacher, its mirror image the generator, other methods' networks, and the classifiers."""
