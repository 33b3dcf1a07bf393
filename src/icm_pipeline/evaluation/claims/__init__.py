"""The claims of an audit, a module for each group of them, which defines `found(inputs)`."""
