"""All rows of a table in one command: a plan, the queue that works it off, and the summary over seeds."""
