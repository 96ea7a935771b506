"""sdn_ray: Symmetrical Distillation Networks (Yuan & Peng, ACM MM 2018) on Ray."""

__version__ = "0.1.0"
