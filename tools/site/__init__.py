"""The docs site: docs/*.md, and pages made from conf/, docstrings, the models' cards and the notebook."""
