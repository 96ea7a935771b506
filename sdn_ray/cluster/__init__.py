"""Ray: starting or joining it, sizing requests, progress, tasks, pools of actors."""
