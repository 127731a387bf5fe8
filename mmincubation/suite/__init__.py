"""Many runs as one job: what runs, what is reused, what is missing, and the table at the end."""
