"""A run's folder and life: arguments, configuration, MLflow, second copy, terminal."""
