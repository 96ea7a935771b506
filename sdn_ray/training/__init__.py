"""A configuration becomes networks and steps; one worker's part; Ray Train around it."""
