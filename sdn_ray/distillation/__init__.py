"""Two-stage distillation: losses (eq. 1 to 5), layer weights, schemes, the training loop."""
