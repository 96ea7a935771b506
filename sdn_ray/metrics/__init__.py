"""Scores of generated images: classifier score, SSIM, agreement with known attributes."""
