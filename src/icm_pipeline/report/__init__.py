"""Pages and terminal tables: run, sweep, wording."""
