"""The HTTP surfaces: client API, control API, the page."""
