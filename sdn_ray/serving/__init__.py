"""The page to try captions: models behind Ray Serve, and what people see of them."""
