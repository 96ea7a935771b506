"""The page to try captions: models behind Ray Serve, and what people see of them."""

import os

# Read by Ray Serve as it is imported. A call then passes through two threads less, each of which
# costs more than a small picture.
os.environ.setdefault("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "0")
os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
