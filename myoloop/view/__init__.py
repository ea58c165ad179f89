"""Seeing a session: a page in the browser (viser, mjviser) and films drawn off-screen."""
