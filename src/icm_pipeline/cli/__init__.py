"""What a command does: jobs, sweeps' callbacks, errors told to a user, `icm show/ls/gc/verify/export`, stopping."""
