"""The page to try captions: models behind Ray Serve, and what people see of them."""

import os

# Read by Ray Serve as it is imported, here and, where this process starts Ray, in the replicas: a
# call then passes through a thread less in each. Handles are used in the page's event loop alone.
os.environ.setdefault("RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP", "0")
os.environ.setdefault("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")
