"""A run's folder and life: arguments, checks, MLflow, second copy, terminal."""
