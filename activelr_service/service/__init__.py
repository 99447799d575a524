"""The driver of a job: what runs in the process that the user, or Ray's job server, started."""
