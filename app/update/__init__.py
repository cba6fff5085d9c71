"""Self-update: compare, download to a temporary place, verify, try, swap, relaunch; every step can fail and recover."""
